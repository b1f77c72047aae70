"""HTTP edge of phases: the registry, and the phase operations of a ticket."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from servicekit.auth import CurrentUser
from servicekit.http import problems
from workflow_service.errors import PHASE_NOT_FOUND, TICKET_NOT_FOUND, TRANSITION_REFUSED
from workflow_service.phases.schemas import (
    ArtifactCreate,
    ArtifactOut,
    CanTransition,
    CheckAdvance,
    GateStatus,
    GateValidation,
    PhaseInfo,
    PhaseMove,
    PhaseTransition,
    SpawnedTasks,
)
from workflow_service.phases.service import PhaseService

PhaseId = Annotated[str | None, Query(max_length=50)]
Reason = Annotated[str | None, Query(max_length=1000)]
_MISSING = problems(TICKET_NOT_FOUND, PHASE_NOT_FOUND)
_MOVE = problems(TICKET_NOT_FOUND, PHASE_NOT_FOUND, TRANSITION_REFUSED)


def router(phases: PhaseService) -> APIRouter:
    """`/api/v1/configs` and the phase operations below `/api/v1/tickets/{id}`."""
    api = APIRouter(prefix="/api/v1", tags=["phases"])

    @api.get("/configs")
    async def list_phases(user: CurrentUser) -> list[PhaseInfo]:
        return phases.all()

    @api.get("/configs/{phase_id}", responses=problems(PHASE_NOT_FOUND))
    async def get_phase(phase_id: str, user: CurrentUser) -> PhaseInfo:
        return phases.one(phase_id)

    @api.post("/tickets/{ticket_id}/validate-gate", responses=_MISSING)
    async def validate_gate(ticket_id: UUID, user: CurrentUser, phase_id: PhaseId = None) -> GateValidation:
        return await phases.validate_gate(user, str(ticket_id), phase_id)

    @api.get("/tickets/{ticket_id}/gate-status", responses=_MISSING)
    async def get_gate_status(ticket_id: UUID, user: CurrentUser, phase_id: PhaseId = None) -> GateStatus:
        return await phases.gate_status(user, str(ticket_id), phase_id)

    @api.post("/tickets/{ticket_id}/artifacts", responses=_MISSING)
    async def add_artifact(ticket_id: UUID, body: ArtifactCreate, user: CurrentUser) -> ArtifactOut:
        return await phases.add_artifact(user, str(ticket_id), body)

    @api.post("/tickets/{ticket_id}/phase-transition", responses=_MOVE)
    async def transition_phase(ticket_id: UUID, body: PhaseTransition, user: CurrentUser) -> PhaseMove:
        return await phases.transition(user, str(ticket_id), body)

    @api.post("/tickets/{ticket_id}/check-advance", responses=problems(TICKET_NOT_FOUND))
    async def check_advance(ticket_id: UUID, user: CurrentUser) -> CheckAdvance:
        return await phases.check_advance(user, str(ticket_id))

    @api.post("/tickets/{ticket_id}/fast-track", responses=_MOVE)
    async def fast_track_ticket(ticket_id: UUID, user: CurrentUser, reason: Reason = None) -> PhaseMove:
        return await phases.fast_track(user, str(ticket_id), reason)

    @api.post("/tickets/{ticket_id}/complete", responses=_MOVE)
    async def complete_ticket(
        ticket_id: UUID, user: CurrentUser, reason: Reason = None, force: bool = False
    ) -> PhaseMove:
        return await phases.complete(user, str(ticket_id), reason, force)

    @api.get("/tickets/{ticket_id}/can-transition/{to_phase}", responses=_MISSING)
    async def can_transition(ticket_id: UUID, to_phase: str, user: CurrentUser) -> CanTransition:
        return await phases.can_transition(user, str(ticket_id), to_phase)

    @api.post("/tickets/{ticket_id}/spawn-phase-tasks", responses=_MISSING)
    async def spawn_phase_tasks(ticket_id: UUID, user: CurrentUser, phase_id: PhaseId = None) -> SpawnedTasks:
        return await phases.spawn_tasks(user, str(ticket_id), phase_id)

    return api
