"""The projection resource → organization, learned from the headers of events marked `resource: true`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

_UPSERT = """
INSERT INTO replica_resources AS r (resource_type, resource_id, organization_id, parent_id)
SELECT DISTINCT ON (f.resource_type, f.resource_id) f.resource_type, f.resource_id, f.organization_id, f.parent_id
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
     WITH ORDINALITY AS f(resource_type, resource_id, organization_id, parent_id, position)
ORDER BY f.resource_type, f.resource_id, f.position DESC
ON CONFLICT (resource_type, resource_id) DO UPDATE
SET organization_id = excluded.organization_id, parent_id = coalesce(excluded.parent_id, r.parent_id)
WHERE (r.organization_id, r.parent_id) IS DISTINCT FROM (excluded.organization_id, excluded.parent_id)
"""

Fact = tuple[str, str, str, str | None]
"""Resource type, resource id, organization id, parent id."""


async def remember(connection: Any, facts: Iterable[Fact]) -> None:
    """Write facts through a raw asyncpg connection; the last one of a resource wins."""
    rows = list(facts)
    if rows:
        # One order in every process, so that two batches with the same resources cannot deadlock.
        await connection.execute(_UPSERT, *(list(column) for column in zip(*rows, strict=True)))


async def organizations_of(connection: Any, resource_type: str, ids: Sequence[str]) -> dict[str, str]:
    """Return resource id → organization id for those that are known."""
    rows = await connection.fetch(
        "SELECT resource_id, organization_id FROM replica_resources WHERE resource_type = $1 AND resource_id = ANY($2)",
        resource_type,
        list(ids),
    )
    return {row["resource_id"]: row["organization_id"] for row in rows}
