"""Finding agents that have gone silent."""

from __future__ import annotations

from datetime import datetime

from agents_service import events
from agents_service.agents import rules, store
from agents_service.agents.service import AgentService
from servicekit.clock import utc_now

JUDGED_MAX = 1_000


class AgentSweeper:
    """Finds agents that have gone silent. It judges nobody for the time in which it did not run itself."""

    def __init__(self, agents: AgentService) -> None:
        self.agents = agents
        self._since: datetime | None = None

    async def sweep(self) -> int:
        """Announce and move silent agents; returns how many were judged."""
        now = utc_now()
        if self._since is None:
            self._since = now
        watched_s = (now - self._since).total_seconds()
        judged = 0
        async with self.agents.db.uow() as tx:
            shortest = min([*rules.TTL_BY_STATUS_S.values(), *rules.TTL_BY_TYPE_S.values()])
            for agent, silence_s in await store.silent(tx, float(shortest), JUDGED_MAX):
                verdict = rules.judge_silence(
                    min(silence_s, watched_s), agent.status, agent.agent_type, agent.missed_heartbeats
                )
                if verdict is None:
                    continue
                judged += 1
                if verdict.announce:
                    tx.emit(
                        events.agent_went_stale(agent.id, agent.last_heartbeat, verdict.misses),
                        aggregate_id=agent.id,
                        version=agent.version,
                        organization_id=agent.organization_id,
                    )
                if verdict.target is None:
                    await store.change(tx, agent, missed_heartbeats=verdict.misses, health_status="unresponsive")
                else:
                    await self.agents.move(
                        tx,
                        agent,
                        verdict.target,
                        f"{verdict.misses} heartbeats missed",
                        "agents",
                        missed_heartbeats=verdict.misses,
                        health_status="unresponsive",
                    )
        return judged
