"""What the events of agents say about their health."""

from __future__ import annotations

from monitoring_service.anomalies.service import AnomalyService
from omoios.agents.events.v1 import events_pb2 as agents
from servicekit.db import Tx
from servicekit.events import Consumers, Event


def consumers(anomalies: AnomalyService) -> Consumers:
    """Agents that fall silent, come back, change or go."""
    c = Consumers("anomalies")

    @c.on(agents.AgentRegistered)
    async def agent_registered(tx: Tx, event: Event[agents.AgentRegistered]) -> None:
        body = event.body
        organization = event.organization_id or ""
        await anomalies.agent_registered(tx, body.agent_id, organization, body.agent_type, body.status, event.version)

    @c.on(agents.AgentUpdated)
    async def agent_updated(tx: Tx, event: Event[agents.AgentUpdated]) -> None:
        body = event.body
        await anomalies.agent_changed(tx, body.agent_id, event.organization_id or "", body.status, event.version)

    @c.on(agents.AgentWentStale)
    async def agent_went_stale(tx: Tx, event: Event[agents.AgentWentStale]) -> None:
        body = event.body
        missed = body.missed_heartbeats
        await anomalies.agent_silent(tx, body.agent_id, event.organization_id or "", missed, event.version)

    @c.on(agents.AgentRecovered)
    async def agent_recovered(tx: Tx, event: Event[agents.AgentRecovered]) -> None:
        await anomalies.agent_heard(tx, event.body.agent_id, event.organization_id or "", event.version)

    return c
