"""SQL of the limits of organizations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from servicekit.db import Tx


@dataclass(frozen=True, slots=True)
class Known:
    """What was told of an organization, None where nothing was. `age_s`: seconds since billing was asked."""

    agents_limit: int | None
    sandbox_ms_used: int | None
    period_ends_at: datetime | None
    age_s: float
    max_concurrent_agents: int | None
    max_agent_runtime_hours: float | None


async def limits(tx: Tx, organization_ids: Sequence[str]) -> dict[str, Known]:
    """What is known of each of these organizations."""
    connection = await tx.connection()
    rows = await connection.fetch(
        """
        SELECT o.id, q.agents_limit, q.sandbox_ms_used, q.period_ends_at,
            coalesce(extract(epoch FROM clock_timestamp() - q.refreshed_at), 'infinity')::float8 AS age_s,
            r.max_concurrent_agents, r.max_agent_runtime_hours
        FROM unnest($1::text[]) AS o(id)
        LEFT JOIN queue_limits q ON q.organization_id = o.id
        LEFT JOIN replica_organizations r ON r.organization_id = o.id
        """,
        list(organization_ids),
    )
    return {row["id"]: Known(*list(row.values())[1:]) for row in rows}


async def save(tx: Tx, told: Sequence[tuple[str, int, int, datetime]]) -> None:
    """Remember what billing told: organization, agents at once, milliseconds of sandboxes in the month ending then."""
    connection = await tx.connection()
    await connection.execute(
        "INSERT INTO queue_limits (organization_id, agents_limit, sandbox_ms_used, period_ends_at)"
        " SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[], $4::timestamptz[])"
        " ON CONFLICT (organization_id) DO UPDATE SET agents_limit = excluded.agents_limit,"
        " sandbox_ms_used = excluded.sandbox_ms_used, period_ends_at = excluded.period_ends_at,"
        " refreshed_at = clock_timestamp()",
        *(list(column) for column in zip(*sorted(told), strict=True)),
    )
