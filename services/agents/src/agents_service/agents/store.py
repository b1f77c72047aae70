"""SQL of the agents room."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select, tuple_, update

from agents_service.agents.rules import OPERATIONAL, TERMINATED
from agents_service.agents.tables import Agent, AgentStatusTransition
from servicekit.db import Tx

# One statement: the old values decide what is answered, the new ones are stored only when the number is greater.
_HEARTBEAT = """
WITH old AS (SELECT * FROM agents WHERE id = $1 FOR UPDATE)
UPDATE agents a SET
    last_heartbeat = CASE WHEN $2 > old.sequence_number THEN clock_timestamp() ELSE a.last_heartbeat END,
    sequence_number = greatest($2, old.sequence_number),
    missed_heartbeats = CASE WHEN $2 > old.sequence_number THEN 0 ELSE a.missed_heartbeats END,
    health_status = CASE WHEN $2 > old.sequence_number THEN 'healthy' ELSE a.health_status END,
    current_task_id = CASE WHEN $2 > old.sequence_number THEN $3 ELSE a.current_task_id END,
    health_metrics = CASE WHEN $2 > old.sequence_number THEN $4::jsonb ELSE a.health_metrics END
FROM old
WHERE a.id = old.id AND old.organization_id = $5 AND old.status = ANY($6::text[])
RETURNING old.sequence_number, old.missed_heartbeats, old.status, old.closed, clock_timestamp() AS received_at
"""

# A member who was never told of is left alone: his row may still be on its way, and super admins need none.
_FORSAKEN = """
SELECT a.id FROM agents a
JOIN replica_memberships m ON a.registered_by = 'user:' || m.user_id AND m.organization_id = a.organization_id
WHERE a.status <> 'TERMINATED' AND NOT (m.active AND m.permissions && $1::text[])
ORDER BY a.id LIMIT $2
"""


async def add(tx: Tx, **values: Any) -> Agent:
    """Inserts an agent that has just beaten."""
    statement = insert(Agent).values(**values, last_heartbeat=func.clock_timestamp()).returning(Agent)
    return (await tx.session.execute(statement)).scalar_one()


async def get(tx: Tx, agent_id: str, *, lock: bool = False) -> Agent | None:
    """One agent; `lock` keeps it until the end of the transaction."""
    query = select(Agent).where(Agent.id == agent_id)
    if lock:
        query = query.with_for_update()
    return (await tx.session.execute(query)).scalar_one_or_none()


async def by_ids(tx: Tx, ids: Sequence[str]) -> Sequence[Agent]:
    """The agents that exist among `ids`."""
    return (await tx.session.execute(select(Agent).where(Agent.id.in_(ids)))).scalars().all()


async def registered_by(tx: Tx, user_id: str, organization_id: str | None, before: datetime) -> Sequence[str]:
    """Ids of a user's agents that are not terminated, in one organization or in all, registered before a moment."""
    query = select(Agent.id).where(
        Agent.registered_by == f"user:{user_id}", Agent.status != TERMINATED, Agent.created_at <= before
    )
    if organization_id is not None:
        query = query.where(Agent.organization_id == organization_id)
    return (await tx.session.execute(query.order_by(Agent.id))).scalars().all()


async def forsaken(tx: Tx, permissions: Sequence[str], limit: int) -> Sequence[str]:
    """Ids of living agents whose registering member has none of the permissions in their organization any more."""
    rows = await (await tx.connection()).fetch(_FORSAKEN, list(permissions), limit)
    return [row["id"] for row in rows]


async def page(
    tx: Tx,
    organizations: Sequence[str],
    *,
    limit: int,
    offset: int = 0,
    status: str | None = None,
    phase_id: str | None = None,
    agent_type: str | None = None,
    excluded: Sequence[str] = (),
) -> Sequence[Agent]:
    """Agents of the organizations, newest first."""
    query = select(Agent).where(Agent.organization_id.in_(organizations))
    if status is not None:
        query = query.where(Agent.status == status)
    if phase_id is not None:
        query = query.where(Agent.phase_id == phase_id)
    if agent_type is not None:
        query = query.where(Agent.agent_type == agent_type)
    if excluded:
        query = query.where(Agent.status.not_in(excluded))
    query = query.order_by(Agent.created_at.desc(), Agent.id.desc()).limit(limit).offset(offset)
    return (await tx.session.execute(query)).scalars().all()


async def candidates(
    tx: Tx,
    organizations: Sequence[str],
    required: Sequence[str],
    *,
    phase_id: str | None,
    agent_type: str | None,
    excluded: Sequence[str],
    limit: int,
) -> Sequence[Agent]:
    """Agents that may match, those sharing a capability first."""
    query = select(Agent).where(Agent.organization_id.in_(organizations), Agent.status.not_in(excluded))
    if phase_id is not None:
        query = query.where(Agent.phase_id == phase_id)
    if agent_type is not None:
        query = query.where(Agent.agent_type == agent_type)
    if required:
        query = query.order_by(Agent.capabilities.overlap(list(required)).desc())
    query = query.order_by(Agent.created_at.desc(), Agent.id.desc()).limit(limit)
    return (await tx.session.execute(query)).scalars().all()


async def stale(
    tx: Tx,
    organizations: Sequence[str],
    timeout_s: int,
    *,
    limit: int,
    offset: int = 0,
    statuses: Collection[str] = OPERATIONAL,
) -> Sequence[Agent]:
    """Agents in one of the statuses whose last heartbeat is older than `timeout_s`, longest silent first."""
    silent = func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, timeout_s)
    query = (
        select(Agent)
        .where(
            Agent.organization_id.in_(organizations),
            Agent.status.in_(sorted(statuses)),
            func.coalesce(Agent.last_heartbeat, Agent.created_at) < silent,
        )
        .order_by(Agent.last_heartbeat, Agent.id)
        .limit(limit)
        .offset(offset)
    )
    return (await tx.session.execute(query)).scalars().all()


async def heartbeat(
    tx: Tx, agent_id: str, organization_id: str, sequence_number: int, task_id: str | None, metrics: str
) -> tuple[int, int, str, bool, datetime] | None:
    """Records a heartbeat; None unless it is operational.

    Returns `(last number, misses, status before, closed, time of receipt)`.
    """
    row = await (await tx.connection()).fetchrow(
        _HEARTBEAT, agent_id, sequence_number, task_id, metrics, organization_id, sorted(OPERATIONAL)
    )
    return None if row is None else (row[0], row[1], row[2], row[3], row[4])


async def silent(tx: Tx, older_than_s: float, limit: int) -> Sequence[tuple[Agent, float]]:
    """Operational agents with their seconds of silence, locked; those another sweep holds are left out."""
    silence = func.extract("epoch", func.clock_timestamp() - func.coalesce(Agent.last_heartbeat, Agent.created_at))
    query = (
        select(Agent, silence)
        .where(Agent.status.in_(sorted(OPERATIONAL)), silence > older_than_s)
        .order_by(Agent.last_heartbeat)
        .limit(limit)
        .with_for_update(skip_locked=True, of=Agent)
    )
    return [(row[0], float(row[1])) for row in await tx.session.execute(query)]


async def change(tx: Tx, agent: Agent, **values: Any) -> Agent:
    """Updates a locked agent, counts its version up and returns it."""
    statement = (
        update(Agent)
        .where(Agent.id == agent.id)
        .values(**values, version=Agent.version + 1, updated_at=func.now())
        .returning(Agent)
        .execution_options(populate_existing=True)
    )
    return (await tx.session.execute(statement)).scalar_one()


async def add_transition(tx: Tx, **values: Any) -> None:
    """Logs one move."""
    await tx.session.execute(insert(AgentStatusTransition).values(**values))


async def statistics(tx: Tx, organizations: Sequence[str], healthy_within_s: int) -> dict[str, Any]:
    """Counts over all agents of the organizations, by the database."""
    age = func.extract("epoch", func.clock_timestamp() - Agent.last_heartbeat)
    mine = Agent.organization_id.in_(organizations)

    async def grouped(column: Any) -> dict[str | None, int]:
        rows = await tx.session.execute(select(column, func.count()).where(mine).group_by(column))
        return {row[0]: row[1] for row in rows}

    totals = (
        await tx.session.execute(
            select(
                func.count(),
                func.count().filter(age <= healthy_within_s),
                func.count().filter(
                    Agent.status.in_(sorted(OPERATIONAL)), func.coalesce(age, healthy_within_s + 1) > healthy_within_s
                ),
                func.count().filter(age <= 300),
                func.count().filter(age <= 3_600),
                func.count().filter(age <= 86_400),
            ).where(mine)
        )
    ).one()
    return {
        "total": totals[0],
        "healthy": totals[1],
        "stale": totals[2],
        "recent": tuple(totals[3:6]),
        "by_status": await grouped(Agent.status),
        "by_type": await grouped(Agent.agent_type),
        "by_phase": await grouped(Agent.phase_id),
        "by_health": await grouped(Agent.health_status),
    }


async def status_counts(tx: Tx, organizations: Sequence[str]) -> Sequence[tuple[str, str, int]]:
    """`(organization, status, count)`; every organization when none is named."""
    query = select(Agent.organization_id, Agent.status, func.count()).group_by(Agent.organization_id, Agent.status)
    if organizations:
        query = query.where(Agent.organization_id.in_(organizations))
    return [(row[0], row[1], row[2]) for row in await tx.session.execute(query)]


async def snapshot(tx: Tx, after: str, limit: int) -> Sequence[Agent]:
    """Agents in the order of their ids, after the given one."""
    query = select(Agent).where(tuple_(Agent.id) > (after,)).order_by(Agent.id).limit(limit)
    return (await tx.session.execute(query)).scalars().all()
