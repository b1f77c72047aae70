"""HTTP edge of tickets. Literal paths come before those with an id."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from servicekit.auth import CurrentUser
from servicekit.http import problems
from workflow_service.errors import (
    OWN_APPROVAL,
    PROJECT_ARCHIVED,
    PROJECT_NOT_FOUND,
    TICKET_NOT_FOUND,
    TICKET_NOT_PENDING,
    TRANSITION_REFUSED,
)
from workflow_service.tickets.schemas import (
    ApprovalDecision,
    ApprovalStatus,
    ApproveBody,
    DuplicateCheck,
    DuplicateQuery,
    NoProgression,
    PendingCount,
    RejectBody,
    TicketContext,
    TicketCreate,
    TicketList,
    TicketOut,
    TicketPatch,
    TransitionBody,
)
from workflow_service.tickets.service import TicketService

Filter = Annotated[str | None, Query(max_length=100)]
Search = Annotated[str | None, Query(max_length=200)]
Sentence = Annotated[str | None, Query(max_length=1000)]
Limit = Annotated[int, Query(ge=1, le=500)]
Offset = Annotated[int, Query(ge=0, le=1_000_000)]


def router(tickets: TicketService) -> APIRouter:
    """`/api/v1/tickets`."""
    api = APIRouter(prefix="/api/v1/tickets", tags=["tickets"])

    @api.get("", responses=problems(PROJECT_NOT_FOUND))
    async def list_tickets(
        user: CurrentUser,
        status: Filter = None,
        priority: Filter = None,
        phase_id: Filter = None,
        project_id: Filter = None,
        search: Search = None,
        limit: Limit = 10,
        offset: Offset = 0,
    ) -> TicketList:
        return await tickets.page(
            user,
            status=status,
            priority=priority,
            phase_id=phase_id,
            project_id=project_id,
            search=search,
            limit=limit,
            offset=offset,
        )

    @api.get("/list", responses=problems(PROJECT_NOT_FOUND))
    async def list_tickets_alias(
        user: CurrentUser,
        status: Filter = None,
        priority: Filter = None,
        phase_id: Filter = None,
        project_id: Filter = None,
        search: Search = None,
        limit: Limit = 10,
        offset: Offset = 0,
    ) -> TicketList:
        return await list_tickets(user, status, priority, phase_id, project_id, search, limit, offset)

    @api.post("", responses=problems(PROJECT_NOT_FOUND, PROJECT_ARCHIVED))
    async def create_ticket(
        body: TicketCreate, user: CurrentUser, requested_by_agent_id: Filter = None
    ) -> TicketOut | DuplicateCheck:
        return await tickets.create(user, body, requested_by_agent_id)

    @api.post("/check-duplicates", responses=problems(PROJECT_NOT_FOUND))
    async def check_duplicate_tickets(body: DuplicateQuery, user: CurrentUser) -> DuplicateCheck:
        return await tickets.check_duplicates(user, body)

    @api.post("/approve", responses=problems(TICKET_NOT_FOUND, TICKET_NOT_PENDING, OWN_APPROVAL))
    async def approve_ticket(body: ApproveBody, user: CurrentUser) -> ApprovalDecision:
        return await tickets.approve(user, str(body.ticket_id))

    @api.post("/reject", responses=problems(TICKET_NOT_FOUND, TICKET_NOT_PENDING))
    async def reject_ticket(body: RejectBody, user: CurrentUser) -> ApprovalDecision:
        return await tickets.reject(user, str(body.ticket_id), body.rejection_reason)

    @api.get("/pending-review-count")
    async def count_pending_reviews(user: CurrentUser) -> PendingCount:
        return await tickets.pending_count(user)

    @api.get("/approval-status", responses=problems(TICKET_NOT_FOUND))
    async def get_approval_status(ticket_id: UUID, user: CurrentUser) -> ApprovalStatus:
        return await tickets.approval_status(user, str(ticket_id))

    @api.get("/{ticket_id}", responses=problems(TICKET_NOT_FOUND))
    async def get_ticket(ticket_id: UUID, user: CurrentUser) -> TicketOut:
        return await tickets.get(user, str(ticket_id))

    @api.patch("/{ticket_id}", responses=problems(TICKET_NOT_FOUND, TRANSITION_REFUSED))
    async def update_ticket(ticket_id: UUID, body: TicketPatch, user: CurrentUser) -> TicketOut:
        return await tickets.patch(user, str(ticket_id), body)

    @api.get("/{ticket_id}/context", responses=problems(TICKET_NOT_FOUND))
    async def get_ticket_context(ticket_id: UUID, user: CurrentUser) -> TicketContext:
        return await tickets.context(user, str(ticket_id))

    @api.post("/{ticket_id}/transition", responses=problems(TICKET_NOT_FOUND, TRANSITION_REFUSED))
    async def transition_ticket(ticket_id: UUID, body: TransitionBody, user: CurrentUser) -> TicketOut:
        return await tickets.transition(user, str(ticket_id), body)

    @api.post("/{ticket_id}/block", responses=problems(TICKET_NOT_FOUND))
    async def block_ticket(
        ticket_id: UUID,
        user: CurrentUser,
        blocker_type: Annotated[str, Query(max_length=100)],
        suggested_remediation: Sentence = None,
    ) -> TicketOut:
        return await tickets.block(user, str(ticket_id), blocker_type, suggested_remediation or "")

    @api.post("/{ticket_id}/unblock", responses=problems(TICKET_NOT_FOUND))
    async def unblock_ticket(ticket_id: UUID, user: CurrentUser) -> TicketOut:
        return await tickets.unblock(user, str(ticket_id))

    @api.post("/{ticket_id}/regress", responses=problems(TICKET_NOT_FOUND, TRANSITION_REFUSED))
    async def regress_ticket(
        ticket_id: UUID,
        user: CurrentUser,
        to_status: Annotated[str, Query(max_length=50)],
        validation_feedback: Sentence = None,
    ) -> TicketOut:
        return await tickets.regress(user, str(ticket_id), to_status, validation_feedback)

    @api.post("/{ticket_id}/progress", responses=problems(TICKET_NOT_FOUND))
    async def progress_ticket(ticket_id: UUID, user: CurrentUser) -> TicketOut | NoProgression:
        return await tickets.progress(user, str(ticket_id))

    return api
