"""How the caller's organizations stand: counts from the replicas, ages and costs from their owners."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Sequence
from datetime import timedelta
from typing import TypeVar

import structlog

from monitoring_service.anomalies.service import AnomalyService
from monitoring_service.anomalies.tables import Anomaly
from monitoring_service.clients import AgentsClient, BillingClient
from monitoring_service.monitor import rules, store
from monitoring_service.monitor.schemas import DashboardSummary, MetricSample
from servicekit.auth import Principal
from servicekit.clock import utc_now
from servicekit.db import Database
from servicekit.errors import AppError

RECENT_HOURS = 24

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class MonitorService:
    """Dashboard, metrics, anomalies."""

    def __init__(self, db: Database, anomalies: AnomalyService, agents: AgentsClient, billing: BillingClient) -> None:
        self.db = db
        self.anomalies = anomalies
        self.agents = agents
        self.billing = billing

    async def dashboard(self, principal: Principal) -> DashboardSummary:
        """Counts over all organizations that the principal may monitor."""
        mine = principal.organizations_with("monitor:read")
        async with self.db.reader(snapshot=True) as tx:
            tasks = await store.tasks_by_status(tx, mine)
            agents = await store.agents_by_type(tx, mine, rules.ACTIVE_AGENTS)
            alerts = await store.open_alerts(tx, mine)
            return DashboardSummary(
                total_tasks_pending=rules.total(tasks, rules.PENDING),
                total_tasks_completed=tasks.get(rules.COMPLETED, 0),
                active_agents=sum(number for _, number in agents),
                stale_agents=await store.stale_agents(tx, mine, rules.NOT_OPERATIONAL),
                active_locks=rules.total(tasks, rules.LEASED),
                recent_anomalies=await store.anomalies_within(tx, mine, RECENT_HOURS),
                critical_alerts=alerts.get("critical", 0),
                running_tasks=tasks.get(rules.RUNNING, 0),
                failed_tasks=tasks.get(rules.FAILED, 0),
                active_sandboxes=await store.open_sandboxes(tx, mine),
                open_alerts=sum(alerts.values()),
            )

    async def metrics(self, principal: Principal, phase_id: str | None) -> list[MetricSample]:
        """The catalogue's samples; `phase_id` narrows those of tasks.

        Heartbeat ages and costs are asked of agents and billing; where one does not answer, its samples are left out
        and `monitor_source_up` says so.
        """
        mine = principal.organizations_with("monitor:read")
        now = utc_now()
        found: list[MetricSample] = []

        def add(name: str, value: float, **labels: str) -> None:
            found.append(MetricSample(metric_name=name, value=value, labels=labels, timestamp=now))

        async with self.db.reader(snapshot=True) as tx:
            wanted = (*rules.PENDING, *rules.LEASED, rules.COMPLETED)
            tasks = await store.tasks_by_phase(tx, mine, wanted, phase_id)
            durations = await store.task_seconds(tx, mine, phase_id)
            active = await store.agents_by_type(tx, mine, rules.ACTIVE_AGENTS)
            agents = dict(await store.agents(tx, mine, rules.NOT_OPERATIONAL))
        completed: Counter[str] = Counter()
        for status, phase, priority, number in tasks:
            if status in rules.PENDING:
                add(rules.TASKS_QUEUED, number, phase_id=phase, priority=priority)
            elif status == rules.COMPLETED:
                completed[phase] += number
        for phase, number in sorted(completed.items()):
            add(rules.TASKS_COMPLETED, number, phase_id=phase)
        for phase, seconds in durations:
            add(rules.TASK_DURATION, seconds, phase_id=phase)
        for agent_type, number in active:
            add(rules.AGENTS_ACTIVE, number, agent_type=agent_type)
        leased = sum(number for status, _, _, number in tasks if status in rules.LEASED)
        add(rules.LOCKS_ACTIVE, leased, **rules.LOCK_LABELS)
        if not mine:
            return found
        day_ago = now - timedelta(hours=RECENT_HOURS)
        beats, costs = await asyncio.gather(
            _asked("agents", self.agents.heartbeats(list(agents))), _asked("billing", self.billing.costs(mine, day_ago))
        )
        add(rules.SOURCE_UP, float(beats is not None), source="agents")
        add(rules.SOURCE_UP, float(costs is not None), source="billing")
        for agent_id, heard in sorted((beats or {}).items()):
            age = max(0.0, (now - heard).total_seconds())
            add(rules.HEARTBEAT_AGE, age, agent_id=agent_id, agent_type=agents[agent_id])
        for organization, spent in sorted((costs or {}).items()):
            if principal.can("billing:read", organization):
                add(rules.COST, spent, organization_id=organization)
        return found

    async def recent_anomalies(
        self, principal: Principal, hours: int, severity: str | None, *, limit: int, offset: int
    ) -> Sequence[Anomaly]:
        """Anomalies of the principal's organizations, newest first."""
        return await self.anomalies.recent(principal, hours, severity, limit=limit, offset=offset)

    async def acknowledge(self, principal: Principal, anomaly_id: str) -> Anomaly:
        """Note that somebody has seen an anomaly. Raises `monitoring.anomaly_not_found`."""
        return await self.anomalies.acknowledge(principal, anomaly_id)


async def _asked(source: str, answer: Awaitable[T]) -> T | None:
    try:
        return await answer
    except AppError as error:
        _log.warning("source_not_answering", source=source, code=error.code, detail=error.detail)
        return None
