"""Anomalies: found, worsened, acknowledged, over."""

from __future__ import annotations

from collections.abc import Sequence

from monitoring_service import events, replica
from monitoring_service.anomalies import rules, store
from monitoring_service.anomalies.tables import Anomaly
from monitoring_service.clients import AgentsClient
from monitoring_service.errors import ANOMALY_NOT_FOUND
from servicekit.auth import Principal
from servicekit.db import Database, Tx
from servicekit.ids import new_id


class AnomalyService:
    """Everything about anomalies but their presentation."""

    def __init__(self, db: Database, agents: AgentsClient) -> None:
        self.db = db
        self.agents = agents

    async def agent_registered(
        self, tx: Tx, agent_id: str, organization_id: str, agent_type: str, status: str, version: int
    ) -> None:
        """An agent is there."""
        await replica.write_agent(tx, agent_id, organization_id, agent_type or None, status, version)

    async def agent_changed(self, tx: Tx, agent_id: str, organization_id: str, status: str, version: int) -> None:
        """An agent has another status; the silence of one that was ended is no anomaly."""
        await replica.write_agent(tx, agent_id, organization_id, None, status, version)
        if status in rules.GONE:
            await self.agent_heard(tx, agent_id, organization_id, version)

    async def agent_silent(self, tx: Tx, agent_id: str, organization_id: str, missed: int, version: int) -> None:
        """Heartbeats of an agent are missing: opens an anomaly, or worsens the open one."""
        missed = max(1, missed)
        if not await replica.write_agent_health(tx, agent_id, organization_id, missed=missed, version=version):
            return
        anomaly = await store.open_or_worsen(
            tx,
            id=new_id(),
            organization_id=organization_id,
            subject_type="agent",
            subject_id=agent_id,
            metric_name=rules.HEARTBEAT_MISSED,
            anomaly_type=rules.THRESHOLD_BREACH,
            severity=rules.silence_severity(missed),
            # An agent that is well misses none; against zero a deviation has no percentage.
            baseline_value=0.0,
            observed_value=float(missed),
            deviation_percent=0.0,
            description=rules.silence_description(agent_id, missed),
            labels={"agent_id": agent_id},
        )
        events.anomaly_detected(tx, anomaly)

    async def agent_heard(self, tx: Tx, agent_id: str, organization_id: str, version: int) -> None:
        """An agent is heard again, or is gone for good: its anomaly is over."""
        if not await replica.write_agent_health(tx, agent_id, organization_id, missed=0, version=version):
            return
        anomaly = await store.resolve(tx, "agent", agent_id, rules.HEARTBEAT_MISSED)
        if anomaly is not None:
            events.anomaly_resolved(tx, anomaly)

    async def hold(self, tx: Tx, anomaly_id: str) -> Anomaly | None:
        """The anomaly if it is open still; it cannot end before this transaction does."""
        anomaly = await store.get(tx, anomaly_id, lock=True)
        return None if anomaly is None or anomaly.resolved_at is not None else anomaly

    async def is_open(self, tx: Tx, subject_type: str, subject_id: str, metric_name: str) -> bool:
        """Whether such an anomaly is open now; it cannot end before this transaction does."""
        return await store.open_anomaly(tx, subject_type, subject_id, metric_name) is not None

    async def rebuild_agents(self) -> int:
        """Read all agents from their owner's snapshot; returns how many."""
        count = 0
        async for page in self.agents.agents():
            async with self.db.uow() as tx:
                for agent in page:
                    await replica.write_agent(
                        tx, agent.id, agent.organization_id, agent.agent_type or None, agent.status, agent.version
                    )
                    if agent.health_status == rules.UNRESPONSIVE and agent.status not in rules.GONE:
                        # Falling silent counted the version up: the word about it is the one before.
                        missed = rules.MISSES_UNTIL_FAILED if agent.status == rules.AGENT_FAILED else 1
                        await self.agent_silent(tx, agent.id, agent.organization_id, missed, agent.version - 1)
                    else:
                        await self.agent_heard(tx, agent.id, agent.organization_id, agent.version)
            count += len(page)
        return count

    async def recent(
        self, principal: Principal, hours: int, severity: str | None, *, limit: int, offset: int
    ) -> Sequence[Anomaly]:
        """Anomalies of the principal's organizations, newest first."""
        organizations = principal.organizations_with("monitor:read")
        if not organizations:
            return []
        async with self.db.reader() as tx:
            return await store.recent(tx, organizations, hours, severity, limit=limit, offset=offset)

    async def acknowledge(self, principal: Principal, anomaly_id: str) -> Anomaly:
        """Note that somebody has seen an anomaly; the first one stays. Raises `monitoring.anomaly_not_found`."""
        async with self.db.uow() as tx:
            anomaly = await store.get(tx, anomaly_id, lock=True)
            if anomaly is None:
                raise ANOMALY_NOT_FOUND()
            principal.require("monitor:write", anomaly.organization_id, ANOMALY_NOT_FOUND)
            if anomaly.acknowledged_at is None:
                anomaly = await store.acknowledge(tx, anomaly_id, principal.user_id)
                events.anomaly_acknowledged(tx, anomaly)
            return anomaly
