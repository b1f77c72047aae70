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


async def save(tx: Tx, told: Sequence[tuple[str, int, int, datetime]]) -> list[str]:
    """Remember what billing told: organization, agents at once, milliseconds of sandboxes in the month ending then.

    Returns the organizations whose number of agents was another one before.
    """
    connection = await tx.connection()
    rows = await connection.fetch(
        """
        WITH told AS (
            SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[], $4::timestamptz[]) AS t(id, agents, ms, ends)
        ), written AS (
            INSERT INTO queue_limits (organization_id, agents_limit, sandbox_ms_used, period_ends_at)
            SELECT * FROM told
            ON CONFLICT (organization_id) DO UPDATE SET agents_limit = excluded.agents_limit,
                sandbox_ms_used = excluded.sandbox_ms_used, period_ends_at = excluded.period_ends_at,
                refreshed_at = clock_timestamp()
        )
        SELECT told.id FROM told JOIN queue_limits before ON before.organization_id = told.id
        WHERE before.agents_limit <> told.agents ORDER BY told.id
        """,
        *(list(column) for column in zip(*sorted(told), strict=True)),
    )
    return [row["id"] for row in rows]


async def plan_changed(tx: Tx, organization_id: str, tier: str, version: int) -> bool:
    """An account stands on this plan, by this version of it; whether that is another plan than the known one.

    What billing told of the limits is then as good as never asked.
    """
    connection = await tx.connection()
    found: bool | None = await connection.fetchval(
        """
        WITH known AS (
            SELECT organization_id, tier FROM queue_limits
            WHERE organization_id = $1 AND account_version < $3 FOR UPDATE
        )
        UPDATE queue_limits q SET tier = $2, account_version = $3,
            refreshed_at = CASE WHEN known.tier IS DISTINCT FROM $2 THEN 'epoch' ELSE q.refreshed_at END
        FROM known WHERE q.organization_id = known.organization_id
        RETURNING known.tier IS DISTINCT FROM $2
        """,
        organization_id,
        tier,
        version,
    )
    return bool(found)
