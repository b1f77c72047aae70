"""Use cases around the execution of a spec, and what its tasks are told of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from servicekit.auth import Principal
from servicekit.db import Database, Tx
from servicekit.errors import AppError
from servicekit.ids import new_id
from workflow_service import events
from workflow_service.clients import BillingClient
from workflow_service.coordination.rules import Tally
from workflow_service.coordination.service import CoordinationService
from workflow_service.coordination.tables import Execution
from workflow_service.errors import (
    DESIGN_NOT_APPROVED,
    NOT_EXECUTING,
    NOTHING_TO_EXECUTE,
    REPOSITORY_NOT_READY,
    REQUIREMENTS_NOT_APPROVED,
    SPEC_ARCHIVED,
)
from workflow_service.projects.service import ProjectService
from workflow_service.specs import rules, store
from workflow_service.specs.schemas import (
    ExecuteOut,
    ExecutionChange,
    ExecutionStatus,
    PhaseData,
    StatusCounts,
    TasksExecuted,
)
from workflow_service.specs.service import SpecService, state_of
from workflow_service.specs.tables import Spec
from workflow_service.specs.tasks_service import SpecTaskMaker

_EXECUTION_STATUS = {"running": "executing"}
# A sandbox is told of at most this many requirements; a task that needs more reads the spec.
REQUIREMENTS_IN_CONTEXT = 50


class SpecExecutionService:
    """Execute, pause, resume, cancel. A reservation is held at billing before anything is committed here."""

    def __init__(
        self,
        db: Database,
        specs: SpecService,
        projects: ProjectService,
        coordination: CoordinationService,
        billing: BillingClient,
        maker: SpecTaskMaker,
    ) -> None:
        self._maker = maker
        self._db = db
        self._specs = specs
        self._projects = projects
        self._coordination = coordination
        self._billing = billing

    async def execute(self, principal: Principal, spec_id: str) -> ExecuteOut:
        """Begin an execution. Raises 402 when billing refuses, 409 when there is nothing to do.

        The reservation's key is the id of the execution. A crash between the two leaves a reservation that nobody
        confirms, which billing ends by itself.
        """
        async with self._db.uow() as tx:
            spec = await self._specs.require(tx, principal, "document:write", spec_id)
            running = await self._coordination.open_of(tx, spec_id)
            if running is None:
                await self._check(tx, spec)
                await self._maker.make(tx, spec, None)
                await self._anything_to_do(tx, spec)
        if running is not None:
            return _already(spec, running)
        execution_id = new_id("execution-")
        try:
            reservation = await self._billing.reserve(
                execution_id, spec.organization_id, spec.id, spec.project_id, spec.budget_micro_usd
            )
        except AppError:
            # Of two clicks one may take the last slot: the other is told that the spec runs, not that it may not.
            async with self._db.reader() as tx:
                running = await self._coordination.open_of(tx, spec_id)
            if running is not None:
                return _already(spec, running)
            raise
        execution = Execution(
            id=execution_id,
            organization_id=spec.organization_id,
            project_id=spec.project_id,
            spec_id=spec.id,
            reservation_id=reservation.reservation_id,
            budget_micro_usd=spec.budget_micro_usd,
            target_branch=spec.target_branch,
            started_by=principal.subject,
        )
        async with self._db.uow() as tx:
            to_do = await self._coordination.begin(tx, execution)
            if to_do is None:
                open_now = await self._coordination.open_of(tx, spec_id)
                assert open_now is not None
                return tx.result(_already(spec, open_now))
            if to_do == 0:
                raise NOTHING_TO_EXECUTE()
            return tx.result(
                ExecuteOut(
                    spec_id=spec_id,
                    status="started",
                    message=f"Execution started with {to_do} task(s)",
                    current_phase=spec.current_phase,
                    execution_id=execution_id,
                )
            )

    async def _check(self, tx: Tx, spec: Spec) -> None:
        if spec.archived:
            raise SPEC_ARCHIVED()
        project = await self._projects.find(tx, spec.project_id)
        if project is not None and project.repository_state == "failed":
            raise REPOSITORY_NOT_READY(
                f"The project's repository could not be mirrored: {project.repository_error or 'unknown reason'}."
            )
        if project is not None and rules.requires_approval(project.settings):
            if not spec.requirements_approved:
                raise REQUIREMENTS_NOT_APPROVED()
            if not spec.design_approved:
                raise DESIGN_NOT_APPROVED()

    async def _anything_to_do(self, tx: Tx, spec: Spec) -> None:
        counts = await store.task_counts(tx, spec.id)
        if not any(status != "completed" or merge_state == "failed" for status, merge_state, _, _ in counts):
            raise NOTHING_TO_EXECUTE()

    async def execute_tasks(self, principal: Principal, spec_id: str, chosen: Sequence[str] | None) -> TasksExecuted:
        """Make tasks of the queue from the chosen tasks of a spec and execute it. Raises 400 before the approval."""
        async with self._db.uow() as tx:
            spec = await self._specs.require(tx, principal, "document:write", spec_id)
            if not spec.design_approved:
                raise DESIGN_NOT_APPROVED()
            # What may not be executed gets no tasks either.
            await self._check(tx, spec)
            made = await self._maker.make(tx, spec, chosen)
        started = await self.execute(principal, spec_id)
        return TasksExecuted(
            success=True,
            message=started.message,
            tasks_created=len(made.task_ids),
            tasks_skipped=made.skipped,
            ticket_id=made.ticket_id,
            errors=[],
        )

    async def pause(self, principal: Principal, spec_id: str, reason: str) -> ExecutionChange:
        """Nothing new is claimed; what runs goes on. Raises 409 when nothing is being executed."""
        async with self._db.uow() as tx:
            await self._specs.require(tx, principal, "document:write", spec_id)
            return tx.result(_change(spec_id, await self._coordination.pause(tx, spec_id, reason)))

    async def resume(self, principal: Principal, spec_id: str) -> ExecutionChange:
        """Claims go on. Raises 409 when nothing is being executed."""
        async with self._db.uow() as tx:
            await self._specs.require(tx, principal, "document:write", spec_id)
            return tx.result(_change(spec_id, await self._coordination.resume(tx, spec_id)))

    async def cancel(self, principal: Principal, spec_id: str, reason: str) -> ExecutionChange:
        """End the execution; its running tasks are cancelled, too. Raises 409 when nothing is being executed."""
        async with self._db.uow() as tx:
            await self._specs.require(tx, principal, "document:write", spec_id)
            found = await self._coordination.cancel(tx, spec_id, reason or "cancelled_by_request")
            return tx.result(_change(spec_id, found))

    async def status(self, principal: Principal, spec_id: str) -> ExecutionStatus:
        """How far the tasks of a spec are."""
        async with self._db.reader() as tx:
            spec = await self._specs.require(tx, principal, "document:read", spec_id)
            counts = await store.task_counts(tx, spec_id)
            planned = await store.planned_counts(tx, spec_id)
        by_group = dict.fromkeys(rules.SPEC_TASK_STATUSES, 0)
        by_state: dict[str, int] = {}
        for status, merge_state, held, number in counts:
            by_group[rules.spec_task_status(status, merge_state, held, "pending")] += number
            by_state[status] = by_state.get(status, 0) + number
        for status, number in planned.items():
            by_group[status if status in by_group else "pending"] += number
        total = sum(by_group.values())
        done = by_group["completed"]
        return ExecutionStatus(
            spec_id=spec_id,
            total_tasks=total,
            status_counts=StatusCounts(**by_group),
            progress=round(done / total * 100, 2) if total else 0.0,
            is_complete=total > 0 and done == total,
            execution_id=spec.current_execution_id,
            execution_status=spec.execution_status,
            target_branch=spec.target_branch,
            tasks_by_state=by_state,
        )

    async def phase_data(self, principal: Principal, spec_id: str) -> PhaseData:
        """What the phases of a spec have produced."""
        async with self._db.reader() as tx:
            spec = await self._specs.require(tx, principal, "document:read", spec_id)
        return PhaseData(
            spec_id=spec.id,
            current_phase=spec.current_phase,
            phase_data=spec.phase_data,
            phase_attempts=spec.phase_attempts,
            last_checkpoint_at=spec.last_checkpoint_at,
            last_error=spec.last_error,
        )

    async def execution_changed(self, tx: Tx, execution: Execution, found: Tally) -> None:
        """Keep the spec's status and progress in step with its execution, and tell it."""
        spec = await store.get(tx, execution.spec_id, lock=True)
        if spec is None:
            return
        status = _EXECUTION_STATUS.get(execution.state, execution.state)
        progress = round(found.done / found.total * 100, 2) if found.total else 0.0
        changes: dict[str, Any] = {}
        if spec.execution_status != status or spec.current_execution_id != execution.id:
            changes["execution_status"] = {"old": spec.execution_status, "new": status}
        if spec.progress != progress:
            changes["progress"] = {"old": spec.progress, "new": progress}
        if not changes:
            return
        spec.execution_status, spec.progress, spec.current_execution_id = status, progress, execution.id
        spec.phase = "Done" if status == "completed" else "Implementation"
        spec.last_error = execution.reason if status == "failed" else None
        if "execution_status" in changes:
            await self._specs.changed(tx, spec, "phase_changed", f"Execution {status}", changes, execution.started_by)
            return
        spec.status = rules.status_of(state_of(spec))
        spec.version += 1
        spec.updated_at = await store.now(tx)
        await tx.session.flush()
        events.spec_updated(tx, spec, {"progress": progress})

    async def contexts(self, task_ids: Sequence[str]) -> Mapping[str, dict[str, Any]]:
        """What each task's sandbox is told of ticket, spec and requirements."""
        async with self._db.reader() as tx:
            rows = await store.task_contexts(tx, task_ids)
            wanted = [row[1].requirement_id for row in rows if row[1].requirement_id is not None]
            requirements = {row.id: row for row in await store.requirements_by_id(tx, wanted)}
            criteria: dict[str, list[Any]] = {}
            for item in await store.criteria(tx, list(requirements)):
                criteria.setdefault(item.requirement_id, []).append(item)
        found: dict[str, dict[str, Any]] = {}
        for task_id, ticket, spec, spec_task_id in rows:
            context: dict[str, Any] = {
                "ticket": {
                    "id": ticket.id,
                    "title": ticket.title,
                    "description": ticket.description,
                    "priority": ticket.priority,
                    "context": ticket.context,
                }
            }
            if spec is not None:
                context["spec"] = {
                    "id": spec.id,
                    "title": spec.title,
                    "description": spec.description,
                    "phase": spec.phase,
                    "spec_task_id": spec_task_id,
                }
                context["design"] = spec.design
                chosen = [requirements[ticket.requirement_id]] if ticket.requirement_id in requirements else []
                context["requirements"] = [
                    {
                        "id": item.id,
                        "title": item.title,
                        "description": f"WHEN {item.condition} THE SYSTEM SHALL {item.action}",
                        "acceptance_criteria": [
                            {"id": one.id, "text": one.text, "completed": one.completed, "requirement_id": item.id}
                            for one in criteria.get(item.id, [])
                        ],
                    }
                    for item in chosen[:REQUIREMENTS_IN_CONTEXT]
                ]
            found[task_id] = context
        return found


def _already(spec: Spec, running: Execution) -> ExecuteOut:
    return ExecuteOut(
        spec_id=spec.id,
        status="already_running",
        message="The spec is being executed",
        current_phase=spec.current_phase,
        execution_id=running.id,
    )


def _change(spec_id: str, execution: Execution | None) -> ExecutionChange:
    if execution is None:
        raise NOT_EXECUTING()
    status = _EXECUTION_STATUS.get(execution.state, execution.state)
    return ExecutionChange(spec_id=spec_id, execution_id=execution.id, status=status, message=f"Execution {status}")
