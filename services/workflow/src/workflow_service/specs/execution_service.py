"""Use cases around the execution of a spec, and what its tasks are told of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

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
from workflow_service.projects.tables import Project
from workflow_service.queue.rules import repository_problem
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
from workflow_service.specs.tasks_service import Made, SpecTaskMaker

_EXECUTION_STATUS = {"running": "executing"}
# A sandbox is told of at most this many requirements; a task that needs more reads the spec.
REQUIREMENTS_IN_CONTEXT = 50


@dataclass(frozen=True, slots=True)
class Begun:
    """What came of the wish to execute. `new`: an execution began; `put`: the tasks of the queue put to work now."""

    spec: Spec
    execution_id: str | None
    new: bool
    to_do: int
    made: Made
    put: Sequence[str]


NOTHING_MADE = Made([], [], 0, None)
_Answer = TypeVar("_Answer", bound=BaseModel)


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
        """Begin an execution. Raises 402 when billing refuses, 409 when there is nothing to do."""
        return await self._begin(principal, spec_id, None, _executed)

    async def execute_tasks(self, principal: Principal, spec_id: str, chosen: Sequence[str] | None) -> TasksExecuted:
        """Put the chosen tasks of a spec to work, with all that they wait for; without a choice all of them.

        The others keep waiting and say so. A running execution takes the chosen ones in. Tasks that run or are done
        count as skipped; when all are, nothing is begun. Raises 400 before the approval, 402 when billing refuses.
        """
        async with self._db.reader() as tx:
            spec = await self._specs.require(tx, principal, "document:write", spec_id)
        if not spec.design_approved:
            raise DESIGN_NOT_APPROVED()
        return await self._begin(
            principal, spec_id, [] if chosen is None else chosen, _tasks_executed, every=not chosen
        )

    async def _begin(
        self,
        principal: Principal,
        spec_id: str,
        chosen: Sequence[str] | None,
        answer: Callable[[Begun], _Answer],
        *,
        every: bool = True,
    ) -> _Answer:
        """Reserve and begin, or have the open execution take in what was `chosen` (None: take in nothing).

        The reservation's key is the id of the execution. A crash between the two leaves a reservation that nobody
        confirms, which billing ends by itself.
        """
        wanted = None if every else chosen
        async with self._db.uow() as tx:
            spec = await self._specs.require(tx, principal, "document:write", spec_id)
            running = await self._coordination.open_of(tx, spec_id)
            if running is None:
                # What may not be executed gets no tasks either.
                await self._check(tx, spec)
            takes_in = chosen is not None
            made = await self._maker.make(tx, spec, wanted) if running is None or takes_in else NOTHING_MADE
            if running is not None:
                return tx.result(answer(await self._join(tx, spec, running, made)))
            if takes_in and not made.waiting:
                return tx.result(answer(Begun(spec, None, False, 0, made, [])))
            if not takes_in and await self._all_done(tx, spec.id):
                raise NOTHING_TO_EXECUTE()
        execution_id = new_id("execution-")
        try:
            reservation = await self._billing.reserve(
                execution_id, spec.organization_id, spec.id, spec.project_id, spec.budget_micro_usd
            )
        except AppError:
            # Of two clicks one may take the last slot: the other is told that the spec runs, not that it may not.
            async with self._db.uow() as tx:
                running = await self._coordination.open_of(tx, spec_id)
                if running is None:
                    raise
                return tx.result(answer(await self._join(tx, spec, running, made if takes_in else NOTHING_MADE)))
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
            # Archived or disapproved while billing was asked.
            spec = await store.get(tx, spec_id, lock=True) or spec
            await self._check(tx, spec)
            if takes_in and not await self._coordination.left_to_do(tx, made.waiting):
                return tx.result(answer(Begun(spec, None, False, 0, made, [])))
            begun = await self._coordination.begin(tx, execution, None if every else made.waiting)
            if begun is None:
                open_now = await self._coordination.open_of(tx, spec_id)
                assert open_now is not None
                return tx.result(answer(await self._join(tx, spec, open_now, made if takes_in else NOTHING_MADE)))
            if not begun:
                raise NOTHING_TO_EXECUTE()
            return tx.result(answer(Begun(spec, execution_id, True, len(begun), made, begun)))

    async def _join(self, tx: Tx, spec: Spec, running: Execution, made: Made) -> Begun:
        """The execution that is open takes in what was made."""
        joined = await self._coordination.join(tx, spec.id, made.waiting)
        return Begun(spec, running.id, False, len(joined), made, joined)

    async def _check(self, tx: Tx, spec: Spec) -> None:
        if spec.archived:
            raise SPEC_ARCHIVED()
        project = await self._projects.find(tx, spec.project_id)
        if (problem := _problem_of(project)) is not None:
            raise REPOSITORY_NOT_READY(problem)
        if project is not None and rules.requires_approval(project.settings):
            if not spec.requirements_approved:
                raise REQUIREMENTS_NOT_APPROVED()
            if not spec.design_approved:
                raise DESIGN_NOT_APPROVED()

    async def _all_done(self, tx: Tx, spec_id: str) -> bool:
        counts = await store.task_counts(tx, spec_id)
        return all(status == "completed" and merge_state != "failed" for status, merge_state, _, _ in counts)

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
            runs = await self._coordination.open_of(tx, spec_id) is not None
            blocked = _problem_of(await self._projects.find(tx, spec.project_id)) if runs else None
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
            blocked_reason=blocked,
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
        # Of a choice of tasks the rest is still to be done.
        done = status == "completed" and await self._all_done(tx, spec.id)
        done = done and not (await store.planned_counts(tx, spec.id)).get("pending")
        spec.phase = "Done" if done else "Implementation"
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


def _executed(begun: Begun) -> ExecuteOut:
    assert begun.execution_id is not None
    return ExecuteOut(
        spec_id=begun.spec.id,
        status="started" if begun.new else "already_running",
        message=_sentence(begun),
        current_phase=begun.spec.current_phase,
        execution_id=begun.execution_id,
    )


def _tasks_executed(begun: Begun) -> TasksExecuted:
    put = begun.made.chosen_among({*begun.made.task_ids, *begun.put})
    return TasksExecuted(
        success=True,
        message=_sentence(begun),
        tasks_created=put,
        tasks_skipped=begun.made.wanted - put,
        ticket_id=begun.made.ticket_id,
        errors=[],
    )


def _sentence(begun: Begun) -> str:
    if begun.execution_id is None:
        return "None of these tasks is left to execute"
    return f"Execution started with {begun.to_do} task(s)" if begun.new else "The spec is being executed"


def _problem_of(project: Project | None) -> str | None:
    """Why the project's repository keeps its work from going on, None where it does not."""
    return None if project is None else repository_problem(project.repository_state, project.repository_error)


def _change(spec_id: str, execution: Execution | None) -> ExecutionChange:
    if execution is None:
        raise NOT_EXECUTING()
    status = _EXECUTION_STATUS.get(execution.state, execution.state)
    return ExecutionChange(spec_id=spec_id, execution_id=execution.id, status=status, message=f"Execution {status}")
