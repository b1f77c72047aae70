"""SQL of dashboard and metrics: counts over the replicas, anomalies and alerts."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Text, cast, func, select

from monitoring_service.alerts.tables import Alert
from monitoring_service.anomalies.tables import Anomaly
from monitoring_service.replica import ReplicaAgent, ReplicaSandbox, ReplicaTask
from servicekit.db import Tx

# Samples of one kind in one answer.
AGENTS_MAX = 1_000


async def tasks_by_status(tx: Tx, organizations: Sequence[str]) -> dict[str, int]:
    """Status → number of tasks."""
    query = (
        select(ReplicaTask.status, func.count())
        .where(ReplicaTask.organization_id.in_(organizations))
        .group_by(ReplicaTask.status)
    )
    return {row[0]: row[1] for row in await tx.session.execute(query)}


async def tasks_by_phase(
    tx: Tx, organizations: Sequence[str], statuses: Sequence[str], phase_id: str | None
) -> list[tuple[str, str, str, int]]:
    """`(status, phase, priority, number)` of tasks in these statuses."""
    query = (
        select(ReplicaTask.status, ReplicaTask.phase_id, ReplicaTask.priority, func.count())
        .where(ReplicaTask.organization_id.in_(organizations), ReplicaTask.status.in_(statuses))
        .group_by(ReplicaTask.status, ReplicaTask.phase_id, ReplicaTask.priority)
        .order_by(ReplicaTask.status, ReplicaTask.phase_id, ReplicaTask.priority)
    )
    if phase_id is not None:
        query = query.where(ReplicaTask.phase_id == phase_id)
    return [(row[0], row[1], row[2], row[3]) for row in await tx.session.execute(query)]


async def task_seconds(tx: Tx, organizations: Sequence[str], phase_id: str | None) -> list[tuple[str, float]]:
    """`(phase, mean seconds from start to completion)` of tasks completed within the last hour."""
    taken = func.extract("epoch", ReplicaTask.completed_at - ReplicaTask.started_at)
    query = (
        select(ReplicaTask.phase_id, func.avg(func.greatest(taken, 0)))
        .where(
            ReplicaTask.organization_id.in_(organizations),
            ReplicaTask.completed_at > func.now() - func.make_interval(0, 0, 0, 0, 1),
            ReplicaTask.started_at.is_not(None),
        )
        .group_by(ReplicaTask.phase_id)
        .order_by(ReplicaTask.phase_id)
    )
    if phase_id is not None:
        query = query.where(ReplicaTask.phase_id == phase_id)
    return [(row[0], float(row[1])) for row in await tx.session.execute(query)]


async def agents_by_type(tx: Tx, organizations: Sequence[str], statuses: Sequence[str]) -> list[tuple[str, int]]:
    """`(type, number)` of agents in these statuses."""
    kind = func.coalesce(ReplicaAgent.agent_type, cast("unknown", Text))
    query = (
        select(kind, func.count())
        .where(ReplicaAgent.organization_id.in_(organizations), ReplicaAgent.status.in_(statuses))
        .group_by(kind)
        .order_by(kind)
    )
    return [(row[0], row[1]) for row in await tx.session.execute(query)]


async def agents(tx: Tx, organizations: Sequence[str], not_in: Sequence[str]) -> list[tuple[str, str]]:
    """`(id, type)` of up to 1,000 agents that are in none of these statuses."""
    query = (
        select(ReplicaAgent.agent_id, func.coalesce(ReplicaAgent.agent_type, cast("unknown", Text)))
        .where(ReplicaAgent.organization_id.in_(organizations), ReplicaAgent.status.not_in(not_in))
        .order_by(ReplicaAgent.agent_id)
        .limit(AGENTS_MAX)
    )
    return [(row[0], row[1]) for row in await tx.session.execute(query)]


async def stale_agents(tx: Tx, organizations: Sequence[str], not_in: Sequence[str]) -> int:
    """Number of silent agents that are in none of these statuses."""
    return await _count(
        tx,
        ReplicaAgent.organization_id.in_(organizations),
        ReplicaAgent.is_stale.is_(True),
        func.coalesce(ReplicaAgent.status, "").not_in(not_in),
    )


async def open_sandboxes(tx: Tx, organizations: Sequence[str]) -> int:
    """Number of sandboxes that have not ended."""
    return await _count(tx, ReplicaSandbox.organization_id.in_(organizations), ReplicaSandbox.ended_at.is_(None))


async def anomalies_within(tx: Tx, organizations: Sequence[str], hours: int) -> int:
    """Number of anomalies detected within the last hours."""
    return await _count(
        tx,
        Anomaly.organization_id.in_(organizations),
        Anomaly.detected_at > func.now() - func.make_interval(0, 0, 0, 0, hours),
    )


async def open_alerts(tx: Tx, organizations: Sequence[str]) -> dict[str, int]:
    """Severity → number of open alerts."""
    query = (
        select(Alert.severity, func.count())
        .where(Alert.organization_id.in_(organizations), Alert.resolved_at.is_(None))
        .group_by(Alert.severity)
    )
    return {row[0]: row[1] for row in await tx.session.execute(query)}


async def _count(tx: Tx, *where: ColumnElement[bool]) -> int:
    number: int = (await tx.session.execute(select(func.count()).where(*where))).scalar_one()
    return number
