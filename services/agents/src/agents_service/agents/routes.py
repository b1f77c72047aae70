"""HTTP edge of the agents room."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from agents_service.agents.discovery_service import AgentDiscovery
from agents_service.agents.schemas import (
    AgentHealth,
    AgentMatch,
    AgentOut,
    AgentPatch,
    AgentRegister,
    AgentRegistered,
    AgentStatistics,
    Availability,
    CleanupResult,
    HeartbeatAck,
    HeartbeatMessage,
)
from agents_service.agents.service import AgentService
from agents_service.errors import (
    AGENT_ENDED,
    AGENT_NOT_FOUND,
    AGENT_TRANSITION_REFUSED,
    CHECKSUM_INVALID,
    HEARTBEAT_MISMATCH,
    NO_MATCHING_AGENT,
)
from servicekit.auth import CurrentUser
from servicekit.http.operations import answer_not_kept
from servicekit.http.paging import Page
from servicekit.http.problems import problems

Timeout = Annotated[int | None, Query(ge=0, le=86_400 * 30)]
Capabilities = Annotated[list[str] | None, Query(max_length=100)]


def router(service: AgentService, discovery: AgentDiscovery) -> APIRouter:
    """The routes of the room."""
    routes = APIRouter(prefix="/api/v1/agents", tags=["agents"])

    @routes.post("/register", status_code=201, responses=problems(AGENT_NOT_FOUND, AGENT_TRANSITION_REFUSED))
    @answer_not_kept
    async def register(user: CurrentUser, body: AgentRegister) -> AgentRegistered:
        """Register an agent; the answer holds its token, once."""
        return await service.register(user, body)

    @routes.get("/search")
    async def search(
        user: CurrentUser,
        capabilities: Capabilities = None,
        phase_id: str | None = None,
        agent_type: str | None = None,
        limit: Annotated[int, Query(ge=1, le=20)] = 5,
    ) -> list[AgentMatch]:
        """The agents that fit the capabilities best."""
        return await discovery.search(user, capabilities or [], phase_id, agent_type, limit)

    @routes.get("/best-fit", responses=problems(NO_MATCHING_AGENT))
    async def best_fit(
        user: CurrentUser,
        capabilities: Capabilities = None,
        phase_id: str | None = None,
        agent_type: str | None = None,
    ) -> AgentMatch:
        """The agent that fits best."""
        return await discovery.best_fit(user, capabilities or [], phase_id, agent_type)

    @routes.get("/health")
    async def list_health(user: CurrentUser, page: Page, timeout_seconds: Timeout = None) -> list[AgentHealth]:
        """Health of all agents."""
        return await discovery.health_of_all(user, timeout_seconds, page.limit, page.offset)

    @routes.get("/statistics")
    async def statistics(user: CurrentUser) -> AgentStatistics:
        """Counts by status, type, phase and health."""
        return await discovery.statistics(user)

    @routes.get("/stale")
    async def list_stale(user: CurrentUser, page: Page, timeout_seconds: Timeout = None) -> list[AgentOut]:
        """Agents without a recent heartbeat."""
        return await discovery.stale(user, timeout_seconds, page.limit, page.offset)

    @routes.post("/cleanup-stale")
    async def cleanup_stale(
        user: CurrentUser, timeout_seconds: Timeout = None, mark_as: str = "timeout"
    ) -> CleanupResult:
        """Mark agents without a recent heartbeat."""
        return await service.cleanup_stale(user, timeout_seconds, mark_as)

    @routes.get("")
    async def list_agents(
        user: CurrentUser,
        page: Page,
        status: str | None = None,
        phase_id: str | None = None,
        organization_id: str | None = None,
    ) -> list[AgentOut]:
        """Agents, newest first."""
        return await service.list_agents(
            user,
            limit=page.limit,
            offset=page.offset,
            status=status,
            phase_id=phase_id,
            organization_id=organization_id,
        )

    @routes.get("/{agent_id}", responses=problems(AGENT_NOT_FOUND))
    async def get_agent(user: CurrentUser, agent_id: str) -> AgentOut:
        """One agent."""
        return await service.get(user, agent_id)

    @routes.patch("/{agent_id}", responses=problems(AGENT_NOT_FOUND, AGENT_TRANSITION_REFUSED))
    async def update_agent(user: CurrentUser, agent_id: str, body: AgentPatch) -> AgentOut:
        """Change an agent."""
        return await service.patch(user, agent_id, body)

    @routes.post("/{agent_id}/availability", responses=problems(AGENT_NOT_FOUND, AGENT_TRANSITION_REFUSED))
    async def set_availability(user: CurrentUser, agent_id: str, body: Availability) -> AgentOut:
        """Open or close an agent for tasks."""
        return await service.set_availability(user, agent_id, body.available)

    @routes.get("/{agent_id}/health", responses=problems(AGENT_NOT_FOUND))
    async def get_health(user: CurrentUser, agent_id: str, timeout_seconds: Timeout = None) -> AgentHealth:
        """Health of one agent."""
        return await discovery.health(user, agent_id, timeout_seconds)

    @routes.post(
        "/{agent_id}/heartbeat", responses=problems(AGENT_NOT_FOUND, HEARTBEAT_MISMATCH, CHECKSUM_INVALID, AGENT_ENDED)
    )
    async def heartbeat(user: CurrentUser, agent_id: str, body: HeartbeatMessage) -> HeartbeatAck:
        """An agent says that it lives."""
        return await service.heartbeat(user, agent_id, body)

    return routes
