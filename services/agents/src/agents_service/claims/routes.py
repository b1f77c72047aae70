"""HTTP edge of the claims room."""

from __future__ import annotations

from fastapi import APIRouter, Request

from agents_service.claims.schemas import ClaimAnswer, ClaimRequest
from agents_service.claims.service import ClaimService
from agents_service.errors import AGENT_NOT_ACTIVE, AGENT_NOT_FOUND
from servicekit.auth import CurrentUser
from servicekit.http.problems import problems


def router(service: ClaimService) -> APIRouter:
    """The long poll of the runners."""
    routes = APIRouter(prefix="/api/v1/agents", tags=["agents"])

    @routes.post("/{agent_id}/claim", responses=problems(AGENT_NOT_FOUND, AGENT_NOT_ACTIVE))
    async def claim(user: CurrentUser, agent_id: str, body: ClaimRequest, request: Request) -> ClaimAnswer:
        """Claim ready tasks, waiting for the first one; each comes with its sandbox, branch and token."""
        return await service.claim(user, agent_id, body, request.is_disconnected)

    return routes
