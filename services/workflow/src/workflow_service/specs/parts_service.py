"""Use cases of the parts of a spec: requirements, criteria, design, tasks, approvals, tickets linked to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from servicekit.auth import Principal
from servicekit.db import Database, Tx
from servicekit.errors import invalid
from servicekit.ids import new_id
from workflow_service.engine.service import EngineService
from workflow_service.errors import (
    CRITERION_NOT_FOUND,
    NOTHING_TO_APPROVE,
    REQUIREMENT_NOT_FOUND,
    REQUIREMENTS_NOT_APPROVED,
    SPEC_EXECUTING,
    SPEC_TASK_NOT_FOUND,
)
from workflow_service.specs import design_rules, parts_store, rules, store
from workflow_service.specs.schemas import (
    CriteriaStatus,
    CriterionCreate,
    CriterionOut,
    CriterionPatch,
    CriterionStatus,
    Design,
    DesignOut,
    LinkBody,
    Linked,
    LinkedTicket,
    LinkedTickets,
    Message,
    RequirementCreate,
    RequirementOut,
    RequirementPatch,
    SpecTaskCreate,
    SpecTaskOut,
    SpecTaskPatch,
    Unlinked,
)
from workflow_service.specs.service import ALL_PARTS, SpecService, requirement_out, requirements_out, spec_task_out
from workflow_service.specs.tables import Criterion, Requirement, Spec, SpecTask


class SpecPartsService:
    """Each change locks the spec, is recorded as a version and told as an event."""

    def __init__(self, db: Database, specs: SpecService, engine: EngineService) -> None:
        self._db = db
        self._specs = specs
        self._engine = engine

    async def _locked(self, tx: Tx, principal: Principal, spec_id: str) -> Spec:
        return await self._specs.require(tx, principal, "document:write", spec_id, lock=True)

    async def _record(self, tx: Tx, spec: Spec, principal: Principal, summary: str, part: str, new: Any) -> None:
        await self._specs.changed(tx, spec, "updated", summary, {part: {"old": None, "new": new}}, principal.subject)

    # Requirements and criteria

    async def add_requirement(self, principal: Principal, spec_id: str, body: RequirementCreate) -> RequirementOut:
        """A new requirement at the end."""
        async with self._db.uow() as tx:
            spec = await self._locked(tx, principal, spec_id)
            position = await parts_store.next_position(tx, Requirement, Requirement.spec_id == spec_id)
            row = Requirement(id=new_id("req-"), spec_id=spec_id, position=position, **body.model_dump())
            await parts_store.add(tx, row)
            await self._record(tx, spec, principal, "Added a requirement", "requirement", row.id)
            return tx.result(requirement_out(row, []))

    async def change_requirement(
        self, principal: Principal, spec_id: str, requirement_id: str, body: RequirementPatch
    ) -> RequirementOut:
        """Change what is given."""
        async with self._db.uow() as tx:
            spec = await self._locked(tx, principal, spec_id)
            row = await self._requirement(tx, spec_id, requirement_id)
            if _apply(row, body.model_dump(exclude_none=True)):
                await self._record(tx, spec, principal, "Changed a requirement", "requirement", row.id)
            found = await requirements_out(tx, [row])
            return tx.result(found[spec_id][0])

    async def remove_requirement(self, principal: Principal, spec_id: str, requirement_id: str) -> Message:
        """Delete a requirement and its criteria."""
        async with self._db.uow() as tx:
            spec = await self._locked(tx, principal, spec_id)
            await parts_store.delete(tx, await self._requirement(tx, spec_id, requirement_id))
            await self._record(tx, spec, principal, "Removed a requirement", "requirement", None)
            return tx.result(Message(message="Requirement deleted"))

    async def add_criterion(
        self, principal: Principal, spec_id: str, requirement_id: str, body: CriterionCreate
    ) -> CriterionOut:
        """A new criterion at the end."""
        async with self._db.uow() as tx:
            spec = await self._locked(tx, principal, spec_id)
            await self._requirement(tx, spec_id, requirement_id)
            position = await parts_store.next_position(tx, Criterion, Criterion.requirement_id == requirement_id)
            row = Criterion(
                id=new_id("crit-"), spec_id=spec_id, requirement_id=requirement_id, position=position, text=body.text
            )
            await parts_store.add(tx, row)
            await self._record(tx, spec, principal, "Added a criterion", "criterion", row.id)
            return tx.result(CriterionOut.model_validate(row))

    async def change_criterion(
        self, principal: Principal, spec_id: str, requirement_id: str, criterion_id: str, body: CriterionPatch
    ) -> CriterionOut:
        """Change what is given."""
        async with self._db.uow() as tx:
            spec = await self._locked(tx, principal, spec_id)
            row = await self._criterion(tx, spec_id, requirement_id, criterion_id)
            if _apply(row, body.model_dump(exclude_none=True)):
                await self._record(tx, spec, principal, "Changed a criterion", "criterion", row.id)
            return tx.result(CriterionOut.model_validate(row))

    async def remove_criterion(
        self, principal: Principal, spec_id: str, requirement_id: str, criterion_id: str
    ) -> Message:
        """Delete a criterion."""
        async with self._db.uow() as tx:
            spec = await self._locked(tx, principal, spec_id)
            await parts_store.delete(tx, await self._criterion(tx, spec_id, requirement_id, criterion_id))
            await self._record(tx, spec, principal, "Removed a criterion", "criterion", None)
            return tx.result(Message(message="Criterion deleted"))

    async def criteria_status(self, principal: Principal, spec_id: str) -> CriteriaStatus:
        """How many criteria are met."""
        async with self._db.reader() as tx:
            await self._specs.require(tx, principal, "document:read", spec_id)
            rows = await store.requirements(tx, [spec_id], ALL_PARTS)
            found = (await requirements_out(tx, rows)).get(spec_id, [])
        total = sum(len(row.criteria) for row in found)
        done = sum(1 for row in found for one in row.criteria if one.completed)
        return CriteriaStatus(
            spec_id=spec_id,
            total_criteria=total,
            completed_criteria=done,
            completion_percentage=round(done / total * 100, 2) if total else 100.0,
            all_complete=total > 0 and done == total,
            by_requirement={
                row.id: CriterionStatus(
                    requirement_title=row.title,
                    total=len(row.criteria),
                    completed=sum(1 for one in row.criteria if one.completed),
                    criteria=row.criteria,
                )
                for row in found
            },
        )

    async def _requirement(self, tx: Tx, spec_id: str, requirement_id: str) -> Requirement:
        row = await parts_store.requirement(tx, spec_id, requirement_id)
        if row is None:
            raise REQUIREMENT_NOT_FOUND()
        return row

    async def _criterion(self, tx: Tx, spec_id: str, requirement_id: str, criterion_id: str) -> Criterion:
        row = await parts_store.criterion(tx, spec_id, requirement_id, criterion_id)
        if row is None:
            raise CRITERION_NOT_FOUND()
        return row

    # Design and approvals

    async def set_design(self, principal: Principal, spec_id: str, body: Design) -> DesignOut:
        """Replace the design whole."""
        design = DesignOut.model_validate(design_rules.normalised(body.model_dump()))
        async with self._db.uow() as tx:
            spec = await self._locked(tx, principal, spec_id)
            spec.design = design.model_dump()
            await self._record(tx, spec, principal, "Changed the design", "design", "changed")
            return tx.result(design)

    async def approve_requirements(self, principal: Principal, spec_id: str) -> Message:
        """Approve the requirements, once. Raises 400 when there is none."""
        async with self._db.uow() as tx:
            spec = await self._locked(tx, principal, spec_id)
            if not await store.requirements(tx, [spec_id], 1):
                raise NOTHING_TO_APPROVE("The spec has no requirement to approve.")
            if not spec.requirements_approved:
                spec.requirements_approved, spec.requirements_approved_at = True, await store.now(tx)
                spec.phase = "Design"
                await self._approved(tx, spec, principal, "requirements_approved", "Requirements approved")
            return tx.result(Message(message="Requirements approved"))

    async def approve_design(self, principal: Principal, spec_id: str) -> Message:
        """Approve the design, once, after the requirements. Raises 400 when it is too early or there is none."""
        async with self._db.uow() as tx:
            spec = await self._locked(tx, principal, spec_id)
            if not spec.requirements_approved:
                raise REQUIREMENTS_NOT_APPROVED()
            if not spec.design:
                raise NOTHING_TO_APPROVE("The spec has no design to approve.")
            if not spec.design_approved:
                spec.design_approved, spec.design_approved_at = True, await store.now(tx)
                spec.phase = "Implementation"
                await self._approved(tx, spec, principal, "design_approved", "Design approved")
            return tx.result(Message(message="Design approved"))

    async def _approved(self, tx: Tx, spec: Spec, principal: Principal, kind: str, summary: str) -> None:
        await self._specs.changed(tx, spec, kind, summary, {kind: {"old": False, "new": True}}, principal.subject)

    # Tasks

    async def tasks(self, principal: Principal, spec_id: str) -> list[SpecTaskOut]:
        """The tasks of a spec in their order, with the state of the work on them."""
        async with self._db.reader() as tx:
            await self._specs.require(tx, principal, "document:read", spec_id)
            rows = await store.spec_tasks(tx, [spec_id], ALL_PARTS)
        return [spec_task_out(*row) for row in rows]

    async def add_task(self, principal: Principal, spec_id: str, body: SpecTaskCreate) -> SpecTaskOut:
        """A new task at the end; it is worked on once it is executed."""
        _check(body.phase, body.priority, None)
        async with self._db.uow() as tx:
            spec = await self._locked(tx, principal, spec_id)
            position = await parts_store.next_position(tx, SpecTask, SpecTask.spec_id == spec_id)
            values = body.model_dump() | {"priority": body.priority.lower(), "dependencies": []}
            row = SpecTask(id=new_id("spec-task-"), spec_id=spec_id, position=position, **values)
            await parts_store.add(tx, row)
            await self._record(tx, spec, principal, "Added a task", "task", row.id)
            return tx.result(spec_task_out(row, None, None, None, None))

    async def change_task(
        self, principal: Principal, spec_id: str, spec_task_id: str, body: SpecTaskPatch
    ) -> SpecTaskOut:
        """Change what is given. The status of a task that is worked on is that of its work."""
        _check(body.phase, body.priority, body.status)
        async with self._db.uow() as tx:
            spec = await self._locked(tx, principal, spec_id)
            row = await self._task(tx, spec_id, spec_task_id)
            changes = body.model_dump(exclude_none=True)
            if "priority" in changes:
                changes["priority"] = changes["priority"].lower()
            if row.task_id is not None and changes.pop("status", None) is not None:
                raise invalid("status", "is that of the task which was made of it", body.status)
            if _apply(row, changes):
                await self._record(tx, spec, principal, "Changed a task", "task", row.id)
            return tx.result(await self._task_out(tx, spec_id, row))

    async def remove_task(self, principal: Principal, spec_id: str, spec_task_id: str) -> Message:
        """Delete a task that is not worked on. Raises 409 when a task of the queue was made of it."""
        async with self._db.uow() as tx:
            spec = await self._locked(tx, principal, spec_id)
            row = await self._task(tx, spec_id, spec_task_id)
            if row.task_id is not None:
                raise SPEC_EXECUTING("A task of the queue was made of it; cancel that one instead.")
            await parts_store.delete(tx, row)
            await self._record(tx, spec, principal, "Removed a task", "task", None)
            return tx.result(Message(message="Task deleted"))

    async def _task(self, tx: Tx, spec_id: str, spec_task_id: str) -> SpecTask:
        row = await parts_store.spec_task(tx, spec_id, spec_task_id)
        if row is None:
            raise SPEC_TASK_NOT_FOUND()
        return row

    async def _task_out(self, tx: Tx, spec_id: str, row: SpecTask) -> SpecTaskOut:
        await tx.session.flush()
        found = [one for one in await store.spec_tasks(tx, [spec_id], ALL_PARTS) if one[0].id == row.id]
        return spec_task_out(*found[0])

    # Tickets

    async def link_tickets(self, principal: Principal, spec_id: str, body: LinkBody) -> Linked:
        """Link tickets of the same project; others are left out as if they were not there.

        So is a ticket that another spec made for itself.
        """
        linked, processed = 0, []
        wanted = list(dict.fromkeys(body.ticket_ids))
        async with self._db.uow() as tx:
            await self._specs.require(tx, principal, "document:write", spec_id)
            tickets = {one: await self._engine.lock(tx, one) for one in sorted(wanted)}
            # Locked: it is not archived meanwhile.
            spec = await self._locked(tx, principal, spec_id)
            for ticket_id in wanted:
                ticket = tickets[ticket_id]
                if ticket is None or ticket.project_id != spec.project_id:
                    continue
                if ticket.spec_id not in (None, spec_id) and rules.belongs_for_good(ticket.context):
                    continue
                processed.append(ticket_id)
                if ticket.spec_id != spec_id:
                    await self._engine.link(tx, ticket, spec_id, archived=spec.archived)
                    linked += 1
            already = len(processed) - linked
            return tx.result(
                Linked(spec_id=spec_id, linked_count=linked, already_linked_count=already, ticket_ids=processed)
            )

    async def unlink_tickets(self, principal: Principal, spec_id: str, body: LinkBody) -> Unlinked:
        """Unlink tickets of this spec; a ticket that it made for itself stays."""
        unlinked = 0
        async with self._db.uow() as tx:
            await self._specs.require(tx, principal, "document:write", spec_id)
            for ticket_id in sorted(set(body.ticket_ids)):
                ticket = await self._engine.lock(tx, ticket_id)
                if ticket is not None and ticket.spec_id == spec_id and not rules.belongs_for_good(ticket.context):
                    await self._engine.link(tx, ticket, None, archived=False)
                    unlinked += 1
            return tx.result(Unlinked(spec_id=spec_id, unlinked_count=unlinked))

    async def linked_tickets(self, principal: Principal, spec_id: str) -> LinkedTickets:
        """Tickets of a spec, oldest first."""
        async with self._db.reader() as tx:
            await self._specs.require(tx, principal, "document:read", spec_id)
            rows = await parts_store.linked_tickets(tx, spec_id, ALL_PARTS)
        tickets = [LinkedTicket.model_validate(row) for row in rows]
        return LinkedTickets(spec_id=spec_id, tickets=tickets, total=len(tickets))


def _apply(row: Any, changes: dict[str, Any]) -> Sequence[str]:
    """Set what is new; returns the names."""
    new = [name for name, value in changes.items() if getattr(row, name) != value]
    for name in new:
        setattr(row, name, changes[name])
    return new


def _check(phase: str | None, priority: str | None, status: str | None) -> None:
    if phase is not None and phase not in rules.PHASES:
        raise invalid("phase", f"must be one of {', '.join(rules.PHASES)}", phase)
    if priority is not None and priority.lower() not in rules.SPEC_PRIORITIES:
        raise invalid("priority", f"must be one of {', '.join(rules.SPEC_PRIORITIES)}", priority)
    if status is not None and status not in rules.SPEC_TASK_STATUSES:
        raise invalid("status", f"must be one of {', '.join(rules.SPEC_TASK_STATUSES)}", status)
