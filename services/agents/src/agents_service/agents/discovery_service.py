"""Finding agents and judging their health; nothing here writes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from agents_service.agents import rules, store
from agents_service.agents.schemas import (
    AgentHealth,
    AgentMatch,
    AgentOut,
    AgentStatistics,
    HealthSummary,
    RecentHeartbeats,
)
from agents_service.agents.service import AgentService, agent_out
from agents_service.agents.tables import Agent
from agents_service.errors import NO_MATCHING_AGENT
from servicekit.auth import Principal
from servicekit.clock import utc_now

CANDIDATES_MAX = 1_000
NOT_DISCOVERABLE = (rules.TERMINATED, rules.QUARANTINED, rules.FAILED)


class AgentDiscovery:
    """Search, health and counts over the agents of the caller's organizations."""

    def __init__(self, agents: AgentService) -> None:
        self.agents = agents
        self.db = agents.db

    async def search(
        self,
        principal: Principal,
        capabilities: Sequence[str],
        phase_id: str | None,
        agent_type: str | None,
        limit: int,
    ) -> list[AgentMatch]:
        """The agents that fit best, best first."""
        required = rules.normalised(capabilities, "capabilities")
        async with self.db.reader() as tx:
            rows = await store.candidates(
                tx,
                principal.organizations_with("agent:read"),
                required,
                phase_id=phase_id,
                agent_type=agent_type,
                excluded=NOT_DISCOVERABLE,
                limit=CANDIDATES_MAX,
            )
        scored = [
            (rules.match_score(required, row.capabilities, row.status, row.health_status, row.capacity), row)
            for row in rows
        ]
        scored.sort(key=lambda item: (-item[0][0], item[1].id))
        return [
            AgentMatch(agent=agent_out(row), match_score=score, matched_capabilities=matched)
            for (score, matched), row in scored[:limit]
        ]

    async def best_fit(
        self, principal: Principal, capabilities: Sequence[str], phase_id: str | None, agent_type: str | None
    ) -> AgentMatch:
        """The one agent that fits best. Raises 404 when there is none."""
        matches = await self.search(principal, capabilities, phase_id, agent_type, 1)
        if not matches:
            raise NO_MATCHING_AGENT()
        return matches[0]

    async def health(self, principal: Principal, agent_id: str, timeout_s: int | None) -> AgentHealth:
        """Health of one agent, derived from its last heartbeat. Raises 404."""
        return _health(await self.agents.readable(principal, agent_id), timeout_s or rules.STALE_AFTER_S, utc_now())

    async def health_of_all(
        self, principal: Principal, timeout_s: int | None, limit: int, offset: int
    ) -> list[AgentHealth]:
        """Health of the caller's agents; reads only."""
        async with self.db.reader() as tx:
            rows = await store.page(tx, principal.organizations_with("agent:read"), limit=limit, offset=offset)
        now = utc_now()
        return [_health(row, timeout_s or rules.STALE_AFTER_S, now) for row in rows]

    async def stale(self, principal: Principal, timeout_s: int | None, limit: int, offset: int) -> list[AgentOut]:
        """Agents without a heartbeat for `timeout_s`; reads only."""
        async with self.db.reader() as tx:
            rows = await store.stale(
                tx,
                principal.organizations_with("agent:read"),
                timeout_s or rules.STALE_AFTER_S,
                limit=limit,
                offset=offset,
            )
        return [agent_out(row) for row in rows]

    async def statistics(self, principal: Principal) -> AgentStatistics:
        """Counts over the agents of the caller's organizations."""
        async with self.db.reader() as tx:
            counts = await store.statistics(tx, principal.organizations_with("agent:read"), rules.STALE_AFTER_S)
        by_health = {key or "unknown": value for key, value in counts["by_health"].items()}
        silent = counts["total"] - counts["healthy"]
        unhealthy = min(silent, counts["stale"])
        five, hour, day = counts["recent"]
        return AgentStatistics(
            total_agents=counts["total"],
            by_status=counts["by_status"],
            by_type=counts["by_type"],
            by_phase={key or "no_phase": value for key, value in counts["by_phase"].items()},
            by_health=by_health,
            stale_count=counts["stale"],
            health_summary=HealthSummary(healthy=counts["healthy"], unhealthy=unhealthy, unknown=silent - unhealthy),
            recent_heartbeats=RecentHeartbeats(last_5_minutes=five, last_hour=hour, last_24_hours=day),
        )


def _health(agent: Agent, timeout_s: int, now: datetime) -> AgentHealth:
    since = None if agent.last_heartbeat is None else (now - agent.last_heartbeat).total_seconds()
    healthy = since is not None and since <= timeout_s and agent.status in rules.OPERATIONAL
    return AgentHealth(
        agent_id=agent.id,
        agent_type=agent.agent_type,
        phase_id=agent.phase_id,
        status=agent.status,
        healthy=healthy,
        is_stale=not healthy,
        last_heartbeat=agent.last_heartbeat,
        time_since_last_heartbeat=since,
        seconds_since_heartbeat=since,
        timeout_seconds=timeout_s,
        capabilities=agent.capabilities,
        created_at=agent.created_at,
        health_status=agent.health_status,
        message="No heartbeat recorded" if since is None else None,
    )
