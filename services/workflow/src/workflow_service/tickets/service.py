"""Use cases of tickets at the HTTP edge; every move goes through the engine."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import Row

from servicekit.auth import Principal
from servicekit.db import Database, Tx
from servicekit.errors import invalid
from workflow_service import events
from workflow_service.engine.rules import BLOCKER_TYPES, Refusal, known_phase, normal_priority
from workflow_service.engine.service import EngineService
from workflow_service.engine.tables import Ticket
from workflow_service.errors import OWN_APPROVAL, PROJECT_ARCHIVED, TICKET_NOT_FOUND, TICKET_NOT_PENDING
from workflow_service.projects.service import ProjectService
from workflow_service.projects.tables import Project
from workflow_service.settings import Settings
from workflow_service.tickets import rules, store
from workflow_service.tickets.schemas import (
    ApprovalDecision,
    ApprovalStatus,
    DuplicateCandidate,
    DuplicateCheck,
    DuplicateQuery,
    NoProgression,
    PendingCount,
    TicketContext,
    TicketCreate,
    TicketList,
    TicketOut,
    TicketPatch,
    TransitionBody,
)

OVERDUE_BATCH = 100
CANDIDATES = 5


class TicketService:
    """Tickets as people see them."""

    def __init__(self, db: Database, projects: ProjectService, engine: EngineService, settings: Settings) -> None:
        self._db = db
        self._projects = projects
        self._engine = engine
        self._settings = settings

    async def page(
        self,
        principal: Principal,
        *,
        status: str | None,
        priority: str | None,
        phase_id: str | None,
        project_id: str | None,
        search: str | None,
        limit: int,
        offset: int,
    ) -> TicketList:
        """Tickets of the caller's organizations, newest first; a sandbox's own. Raises 404 for a foreign project."""
        filters = {
            "status": status,
            "priority": priority.upper() if priority else None,
            "phase_id": phase_id,
            "project_id": project_id,
        }
        organizations = principal.organizations_with("ticket:read")
        async with self._db.reader() as tx:
            if project_id is not None:
                project = await self._projects.require(tx, principal, "ticket:read", project_id)
                organizations = [project.organization_id]
            own = await self._engine.own_ticket(tx, principal)
            if own is not None:
                only = await store.matching(tx, own, organizations, **filters, search=search)
                return TicketList(tickets=[ticket_out(row) for row in only][offset : offset + limit], total=len(only))
            rows = await store.page(tx, organizations, **filters, search=search, limit=limit, offset=offset)
            if search:
                total = await store.count_search(tx, organizations, **filters, search=search)
            else:
                total = await store.count(tx, organizations, **filters)
        return TicketList(tickets=[ticket_out(row) for row in rows], total=total)

    async def create(
        self, principal: Principal, body: TicketCreate, agent_id: str | None
    ) -> TicketOut | DuplicateCheck:
        """A new ticket, or the tickets that say the same. With the approval gate on it waits for a decision."""
        phase_id = known_phase(body.phase_id)
        if phase_id is None:
            raise invalid("phase_id", "is no phase", body.phase_id)
        priority = _priority(body.priority)
        text_hash = rules.content_hash(body.title, body.description)
        async with self._db.uow() as tx:
            project = await self._project(tx, principal, body)
            if body.check_duplicates and not body.force_create:
                same = await store.same_text(tx, [project.organization_id], project.id, text_hash, CANDIDATES)
                if same:
                    return tx.result(_duplicates(same))
            gate = self._settings.ticket_human_review
            deadline = None
            if gate:
                deadline = await self._engine.clock(tx) + timedelta(seconds=self._settings.approval_timeout_seconds)
            row: dict[str, Any] = {
                "organization_id": project.organization_id,
                "project_id": project.id,
                "title": body.title,
                "description": body.description,
                "phase_id": phase_id,
                "priority": priority,
                "user_id": principal.member_id,
                "context": {"workflow_mode": body.workflow_mode} if body.workflow_mode else {},
                "requested_by_agent_id": agent_id,
                "approval_status": "pending_review" if gate else "approved",
                "approval_deadline_at": deadline,
                "content_hash": text_hash,
            }
            ticket = (await self._engine.create(tx, [row]))[0]
            await self._dependencies(tx, principal, ticket, body)
            if gate:
                events.ticket_approval_changed(tx, ticket, principal.subject)
            else:
                await self._begin(tx, ticket, fresh=body.dependencies is None)
            return tx.result(ticket_out(ticket))

    async def _project(self, tx: Tx, principal: Principal, body: TicketCreate) -> Project:
        if body.project_id is not None:
            project = await self._projects.require(tx, principal, "ticket:write", body.project_id, share=True)
        elif body.github_owner and body.github_repo:
            found = await self._projects.of_repository(tx, principal, body.github_owner, body.github_repo)
            project = await self._projects.require(tx, principal, "ticket:write", found.id, share=True)
        else:
            raise invalid("project_id", "is needed, or github_owner and github_repo")
        if project.status == "archived":
            raise PROJECT_ARCHIVED()
        return project

    async def _dependencies(self, tx: Tx, principal: Principal, ticket: Ticket, body: TicketCreate) -> None:
        if body.dependencies is None:
            return
        before = [str(one) for one in body.dependencies.blocked_by]
        after = [str(one) for one in body.dependencies.blocks]
        both = sorted(set(before) & set(after))
        if both:
            raise invalid(("dependencies", "blocks"), "cannot also be in blocked_by", both)
        for field, ids in (("blocked_by", before), ("blocks", after)):
            for one in ids:
                found = await self._engine.find(tx, one)
                if found is None or found.organization_id != ticket.organization_id:
                    raise invalid(("dependencies", field), "is no ticket of this organization", one)
        pairs = [(ticket.id, one) for one in before] + [(one, ticket.id) for one in after]
        cycle = await self._engine.cycle_with(tx, ticket.organization_id, pairs)
        if cycle is not None:
            place = cycle.index(ticket.id)
            others = [*cycle[place + 1 :], *cycle[:place]]
            way = " → ".join(["this ticket", *others, "this ticket"])
            raise invalid(("dependencies", "blocks"), f"would let tickets wait for each other: {way}", others)
        await self._engine.wait_for(tx, pairs)

    async def _begin(self, tx: Tx, ticket: Ticket, *, fresh: bool = False) -> None:
        """The first task of an approved ticket, by the way of working that it was made with."""
        task_type, config = rules.first_task(ticket.context.get("workflow_mode"))
        await self._engine.enqueue(tx, ticket, task_type, ticket.phase_id, config, fresh=fresh)

    async def check_duplicates(self, principal: Principal, body: DuplicateQuery) -> DuplicateCheck:
        """Tickets of the caller's organizations that say the same."""
        organizations = principal.organizations_with("ticket:read")
        async with self._db.reader() as tx:
            if body.project_id is not None:
                await self._projects.require(tx, principal, "ticket:read", body.project_id)
            text_hash = rules.content_hash(body.title, body.description)
            return _duplicates(await store.same_text(tx, organizations, body.project_id, text_hash, body.top_k))

    async def get(self, principal: Principal, ticket_id: str) -> TicketOut:
        """One ticket."""
        async with self._db.reader() as tx:
            return ticket_out(await self._engine.require(tx, principal, "ticket:read", ticket_id))

    async def patch(self, principal: Principal, ticket_id: str, body: TicketPatch) -> TicketOut:
        """Change what is given. Raises 400 for a status that the ticket may not move to."""
        priority = _priority(body.priority) if body.priority is not None else None
        async with self._db.uow() as tx:
            ticket = await self._engine.require(tx, principal, "ticket:write", ticket_id, lock=True)
            given = {"title": body.title, "description": body.description, "priority": priority}
            changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
            if "title" in changes or "description" in changes:
                title, description = changes.get("title", ticket.title), changes.get("description", ticket.description)
                changes["content_hash"] = rules.content_hash(title, description)
            await self._engine.edit(tx, ticket, changes)
            if body.status is not None and body.status != ticket.status:
                await self._engine.move_to_status(tx, ticket, body.status, principal.subject, "")
            return tx.result(ticket_out(ticket))

    async def transition(self, principal: Principal, ticket_id: str, body: TransitionBody) -> TicketOut:
        """Move to a status. Raises 400 naming what is allowed. `force` skips the checks."""
        async with self._db.uow() as tx:
            ticket = await self._engine.require(tx, principal, "ticket:write", ticket_id, lock=True)
            await self._engine.move_to_status(
                tx, ticket, body.to_status, principal.subject, body.reason or "", force=body.force
            )
            return tx.result(ticket_out(ticket))

    async def block(self, principal: Principal, ticket_id: str, blocker: str, remediation: str) -> TicketOut:
        """Set the overlay; a blocked or finished ticket stays as it is."""
        if blocker not in BLOCKER_TYPES:
            raise invalid("blocker_type", f"must be one of {', '.join(BLOCKER_TYPES)}", blocker, where="query")
        async with self._db.uow() as tx:
            ticket = await self._engine.require(tx, principal, "ticket:write", ticket_id, lock=True)
            await self._engine.block(tx, ticket, blocker, remediation, principal.subject)
            return tx.result(ticket_out(ticket))

    async def unblock(self, principal: Principal, ticket_id: str) -> TicketOut:
        """Clear the overlay; a ticket that is not blocked stays as it is."""
        async with self._db.uow() as tx:
            ticket = await self._engine.require(tx, principal, "ticket:write", ticket_id, lock=True)
            await self._engine.unblock(tx, ticket, principal.subject)
            return tx.result(ticket_out(ticket))

    async def regress(self, principal: Principal, ticket_id: str, to_status: str, feedback: str | None) -> TicketOut:
        """Move back with the feedback that made it so. Raises 400 when the ticket may not move there."""
        async with self._db.uow() as tx:
            ticket = await self._engine.require(tx, principal, "ticket:write", ticket_id, lock=True)
            regression = {
                "regressed_from": ticket.status,
                "regressed_to": to_status,
                "validation_feedback": feedback,
                "regressed_at": (await self._engine.clock(tx)).isoformat(),
            }
            await self._engine.move_to_status(tx, ticket, to_status, principal.subject, f"regression: {feedback or ''}")
            known = ticket.context.get("regressions", [])
            await self._engine.edit(tx, ticket, {"context": {**ticket.context, "regressions": [*known, regression]}})
            return tx.result(ticket_out(ticket))

    async def progress(self, principal: Principal, ticket_id: str) -> TicketOut | NoProgression:
        """One step along the chain of statuses, if the gate of the current phase is met."""
        async with self._db.uow() as tx:
            ticket = await self._engine.require(tx, principal, "ticket:write", ticket_id, lock=True)
            move = await self._engine.progress(tx, ticket, principal.subject)
            return tx.result(NoProgression() if isinstance(move, Refusal) else ticket_out(ticket))

    async def context(self, principal: Principal, ticket_id: str) -> TicketContext:
        """What is known around the ticket."""
        async with self._db.reader() as tx:
            ticket = await self._engine.require(tx, principal, "ticket:read", ticket_id)
        return TicketContext(ticket_id=ticket.id, full_context=ticket.context, summary=ticket.context_summary)

    # Approval

    async def approve(self, principal: Principal, ticket_id: str) -> ApprovalDecision:
        """Approve, by an admin of the organization; its first task begins. Raises 400 when none is waited for.

        Raises 403 for who asked for the ticket, unless nobody else of the organization may approve it.
        """
        async with self._db.uow() as tx:
            ticket = await self._pending(tx, principal, ticket_id)
            by = principal.user_id
            if ticket.user_id == by and await store.has_other_approver(tx, ticket.organization_id, by):
                raise OWN_APPROVAL()
            await self._engine.decide_approval(tx, ticket, "approved", principal.subject, None, delete=False)
            await self._begin(tx, ticket)
            return tx.result(ApprovalDecision(ticket_id=ticket_id, status="approved"))

    async def reject(self, principal: Principal, ticket_id: str, reason: str) -> ApprovalDecision:
        """Reject, by an admin of the organization; deleted or kept by setting. Raises 400 when none is waited for."""
        async with self._db.uow() as tx:
            ticket = await self._pending(tx, principal, ticket_id)
            delete = self._settings.on_reject == "delete"
            await self._engine.decide_approval(tx, ticket, "rejected", principal.subject, reason, delete=delete)
            return tx.result(ApprovalDecision(ticket_id=ticket_id, status="rejected"))

    async def _pending(self, tx: Tx, principal: Principal, ticket_id: str) -> Ticket:
        ticket = await self._engine.require(tx, principal, "ticket:write", ticket_id, lock=True)
        principal.require_role("admin", ticket.organization_id, TICKET_NOT_FOUND)
        if ticket.approval_status != "pending_review":
            raise TICKET_NOT_PENDING(approval_status=ticket.approval_status)
        return ticket

    async def pending_count(self, principal: Principal) -> PendingCount:
        """Tickets of the caller's organizations that wait for an approval."""
        async with self._db.reader() as tx:
            count = await store.pending_reviews(tx, principal.organizations_with("ticket:read"))
        return PendingCount(pending_count=count)

    async def approval_status(self, principal: Principal, ticket_id: str) -> ApprovalStatus:
        """How the approval of a ticket stands."""
        async with self._db.reader() as tx:
            ticket = await self._engine.require(tx, principal, "ticket:read", ticket_id)
        return ApprovalStatus(
            ticket_id=ticket.id,
            approval_status=ticket.approval_status,
            deadline_at=ticket.approval_deadline_at,
            requested_by_agent_id=ticket.requested_by_agent_id,
            rejection_reason=ticket.rejection_reason,
        )

    async def expire_approvals(self) -> int:
        """Time out the tickets whose decision came too late."""
        async with self._db.reader() as tx:
            overdue = await store.overdue_reviews(tx, OVERDUE_BATCH)
        for ticket_id in overdue:
            async with self._db.uow() as tx:
                ticket = await self._engine.lock(tx, ticket_id)
                if ticket is None or ticket.approval_status != "pending_review":
                    continue
                delete = self._settings.on_reject == "delete"
                await self._engine.decide_approval(tx, ticket, "timed_out", "workflow", "timeout", delete=delete)
        return len(overdue)


def ticket_out(ticket: Ticket | Row[Any]) -> TicketOut:
    """The answer of a row."""
    return TicketOut.model_validate(ticket)


def _priority(value: str) -> str:
    known = normal_priority(value)
    if known is None:
        raise invalid("priority", "must be one of CRITICAL, HIGH, MEDIUM, LOW", value)
    return known


def _duplicates(same: list[Ticket]) -> DuplicateCheck:
    return DuplicateCheck(
        is_duplicate=bool(same),
        message=f"{len(same)} ticket(s) say the same" if same else "No ticket says the same",
        candidates=[
            DuplicateCandidate(
                ticket_id=row.id,
                title=row.title,
                description=row.description or "",
                status=row.status,
                similarity_score=1.0,
            )
            for row in same
        ],
        highest_similarity=1.0 if same else 0.0,
    )
