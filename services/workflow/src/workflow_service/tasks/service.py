"""Use cases of tasks at the HTTP edge."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from servicekit.auth import Principal, PrincipalType
from servicekit.db import Database, Tx
from servicekit.errors import invalid
from servicekit.ids import new_id
from workflow_service.engine.rules import known_phase, normal_priority
from workflow_service.engine.service import EngineService
from workflow_service.errors import (
    DEPENDENCY_NOT_FOUND,
    NO_DEPENDENCIES,
    TASK_ENDED,
    TASK_NOT_FOUND,
    TASK_TRANSITION_REFUSED,
    TICKET_NOT_APPROVED,
)
from workflow_service.queue import rules as queue_rules
from workflow_service.queue.claims_service import ClaimService
from workflow_service.queue.draft_rules import TaskDraft
from workflow_service.queue.limits_service import LimitService
from workflow_service.queue.service import QueueService
from workflow_service.queue.tables import Task
from workflow_service.settings import Settings
from workflow_service.tasks import rules, store
from workflow_service.tasks.schemas import (
    BlockedTask,
    Cancelled,
    CircularCheck,
    CleanedUp,
    ConversationBody,
    ConversationRegistered,
    Dependencies,
    Failed,
    ReadinessOut,
    ReasonOut,
    Retried,
    TaskCreate,
    TaskDependencies,
    TaskDependenciesFull,
    TaskListItem,
    TaskOut,
    TaskPatch,
    TimedTask,
    TimeoutSet,
    TimeoutStatus,
)

WORK_LIMIT = 500


class TaskService:
    """Tasks as people and agents see them; every change goes through the queue."""

    def __init__(
        self,
        db: Database,
        queue: QueueService,
        claims: ClaimService,
        limits: LimitService,
        engine: EngineService,
        settings: Settings,
    ) -> None:
        self._db = db
        self._queue = queue
        self._claims = claims
        self._limits = limits
        self._engine = engine
        self._settings = settings

    async def require(self, tx: Tx, principal: Principal, permission: str, task_id: str) -> Task:
        """The task, if the caller may; a sandbox sees its own task only. 404 where it is unknown or foreign."""
        task = await self._queue.find(tx, task_id)
        own = principal.type is not PrincipalType.SANDBOX or principal.claims.get("task") == task_id
        if task is None or not own:
            raise TASK_NOT_FOUND()
        principal.require(permission, task.organization_id, missing=TASK_NOT_FOUND)
        return task

    async def page(
        self,
        principal: Principal,
        *,
        status: str | None,
        phase_id: str | None,
        has_sandbox: bool | None,
        ticket_id: str | None,
        project_id: str | None,
        limit: int,
        offset: int,
    ) -> list[TaskListItem]:
        """Tasks of the caller's organizations, newest first. Raises 404 for a foreign ticket."""
        async with self._db.reader() as tx:
            if ticket_id is not None:
                await self._engine.require(tx, principal, "task:read", ticket_id)
            rows = await store.page(
                tx,
                principal.organizations_with("task:read"),
                status=status,
                phase_id=phase_id,
                has_sandbox=has_sandbox,
                ticket_id=ticket_id,
                project_id=project_id,
                limit=limit,
                offset=offset,
            )
        return [TaskListItem.model_validate(row) for row in rows]

    async def create(self, principal: Principal, body: TaskCreate) -> TaskOut:
        """A new task. Raises 404 for ticket or dependencies, 409 for a ticket that is not approved."""
        phase_id = known_phase(body.phase_id)
        if phase_id is None:
            raise invalid("phase_id", "is no phase", body.phase_id)
        async with self._db.uow() as tx:
            ticket = await self._engine.require(tx, principal, "task:write", body.ticket_id)
            if ticket.approval_status != "approved":
                raise TICKET_NOT_APPROVED()
            config = body.execution_config.model_dump(exclude_defaults=True) if body.execution_config else {}
            draft = TaskDraft(
                id=new_id(),
                organization_id=ticket.organization_id,
                project_id=ticket.project_id,
                ticket_id=ticket.id,
                title=body.title,
                description=body.description,
                task_type=body.task_type,
                phase_id=phase_id,
                priority=_priority(body.priority),
                depends_on=tuple(dict.fromkeys(body.dependencies.depends_on)) if body.dependencies else (),
                required_capabilities=tuple(body.required_capabilities),
                owned_files=tuple(body.execution_config.files) if body.execution_config else (),
                execution_config=config,
                max_retries=body.max_retries,
                timeout_seconds=body.timeout_seconds,
            )
            task = (await self._queue.create(tx, [draft]))[0]
            return tx.result(_out(task, list(draft.depends_on)))

    async def get(self, principal: Principal, task_id: str) -> TaskOut:
        """One task."""
        async with self._db.reader() as tx:
            task = await self.require(tx, principal, "task:read", task_id)
            return _out(task, [edge[0] for edge in await store.depends_on(tx, task_id)])

    async def patch(self, principal: Principal, task_id: str, body: TaskPatch) -> TaskOut:
        """Change what is given. A status is a legal move only, through the queue: cancelled, failed or pending."""
        priority = _priority(body.priority) if body.priority is not None else None
        async with self._db.uow() as tx:
            await self.require(tx, principal, "task:write", task_id)
            task = await self._queue.edit(
                tx, task_id, {"title": body.title, "description": body.description, "priority": priority}
            )
            if body.status is not None and body.status != task.status:
                task = await self._move(tx, principal, task, body.status)
            return tx.result(_out(task, [edge[0] for edge in await store.depends_on(tx, task_id)]))

    async def _move(self, tx: Tx, principal: Principal, task: Task, status: str) -> Task:
        if status not in queue_rules.MOVES:
            raise invalid("status", f"must be one of {', '.join(queue_rules.MOVES)}", status)
        if queue_rules.may_move(task.status, status):
            if status == queue_rules.CANCELLED:
                return await self._queue.cancel_one(tx, task.id, "cancelled_by_request")
            if status == queue_rules.FAILED:
                return (await self._queue.fail_one(tx, task.id, "marked_failed_by_user", principal.subject))[0]
            if status == queue_rules.PENDING and task.status in (queue_rules.FAILED, queue_rules.CANCELLED):
                return await self._queue.retry(tx, task.id)
        raise TASK_TRANSITION_REFUSED(f"A task that is {task.status} may not be set to {status} here.")

    async def cancel(self, principal: Principal, task_id: str, reason: str) -> Cancelled:
        """Cancel; its sandbox is ended by event. Raises 404 when it has ended."""
        async with self._db.uow() as tx:
            await self.require(tx, principal, "task:write", task_id)
            await self._queue.cancel_one(tx, task_id, reason)
            return tx.result(Cancelled(task_id=task_id, cancelled=True, reason=reason))

    async def fail(self, principal: Principal, task_id: str, reason: str) -> Failed:
        """Fail for good. Raises 400 when it has ended."""
        async with self._db.uow() as tx:
            await self.require(tx, principal, "task:write", task_id)
            task, old_status = await self._queue.fail_one(tx, task_id, reason, "user")
            return tx.result(Failed(task_id=task_id, status=task.status, reason=reason, old_status=old_status))

    async def retry(self, principal: Principal, task_id: str) -> Retried:
        """Queue a failed or cancelled task again. Raises 409 when it is neither, or its execution has ended."""
        async with self._db.uow() as tx:
            await self.require(tx, principal, "task:write", task_id)
            task = await self._queue.retry(tx, task_id)
            return tx.result(Retried(task_id=task_id, status=task.status, attempt=task.attempt))

    async def readiness(self, principal: Principal, task_id: str) -> ReadinessOut:
        """Why the task does not run: every reason, not only the first."""
        async with self._db.reader() as tx:
            task = await self.require(tx, principal, "task:read", task_id)
            around = await self._queue.readiness(tx, task, self._settings.project_concurrency)
            limits = await self._limits.known(tx, task.organization_id)
            repository = await store.repository_of(tx, task.project_id)
        found = rules.reasons(
            rules.Surroundings(
                status=task.status,
                holds=task.holds,
                waits_for=tuple(
                    (one.id, one.title or one.task_type, one.status, one.merge_state) for one in around.waits_for
                ),
                not_before=task.not_before,
                start_error=task.start_error if task.start_failures else None,
                releases=task.releases,
                now=around.now,
                required_capabilities=tuple(task.required_capabilities),
                repository_error=queue_rules.repository_problem(*repository),
                project_active=around.project_active,
                project_cap=around.project_cap,
                organization_active=around.organization_active,
                organization=limits,
            )
        )
        message = " ".join(reason.detail for reason in found)
        return ReadinessOut(
            task_id=task_id,
            status=task.status,
            ready=not found,
            message=message or rules.waiting_for(tuple(task.required_capabilities)),
            reasons=[ReasonOut(code=one.code, detail=one.detail, tasks=list(one.tasks)) for one in found],
        )

    # Dependencies

    async def dependencies(self, principal: Principal, task_id: str) -> TaskDependenciesFull:
        """What the task depends on and what waits for it."""
        async with self._db.reader() as tx:
            await self.require(tx, principal, "task:read", task_id)
            edges = await store.depends_on(tx, task_id)
            waiting = await store.waiting_for(tx, task_id)
        return TaskDependenciesFull(
            task_id=task_id,
            depends_on=[edge[0] for edge in edges],
            dependencies_complete=all(edge[1] for edge in edges),
            blocked_tasks=[BlockedTask(id=row.id, description=row.description, status=row.status) for row in waiting],
        )

    async def check_circular(self, principal: Principal, task_id: str, depends_on: Sequence[str]) -> CircularCheck:
        """Whether these further dependencies would close a cycle. Nothing is changed."""
        async with self._db.reader() as tx:
            await self.require(tx, principal, "task:read", task_id)
            cycle = await self._queue.cycle_with(tx, task_id, list(dict.fromkeys(depends_on)))
        return CircularCheck(has_circular_dependency=cycle is not None, cycle=cycle)

    async def set_dependencies(
        self, principal: Principal, task_id: str, depends_on: Sequence[str], *, replace: bool
    ) -> TaskDependencies:
        """Add dependencies, or replace them all. Raises 404 for unknown ones, 400 for a cycle."""
        async with self._db.uow() as tx:
            await self.require(tx, principal, "task:write", task_id)
            _, now_on = await self._queue.set_dependencies(tx, task_id, depends_on, replace=replace)
            return tx.result(await self._dependencies(tx, task_id, now_on))

    async def remove_dependency(self, principal: Principal, task_id: str, depends_on: str) -> TaskDependencies:
        """Remove one dependency. Raises 400 when the task has none, 404 when it does not depend on that one."""
        async with self._db.uow() as tx:
            await self.require(tx, principal, "task:write", task_id)
            edges = [edge[0] for edge in await store.depends_on(tx, task_id)]
            if not edges:
                raise NO_DEPENDENCIES()
            if depends_on not in edges:
                raise DEPENDENCY_NOT_FOUND("The task does not depend on this one.")
            _, now_on = await self._queue.set_dependencies(tx, task_id, [], remove=[depends_on])
            return tx.result(await self._dependencies(tx, task_id, now_on))

    async def _dependencies(self, tx: Tx, task_id: str, depends_on: Sequence[str]) -> TaskDependencies:
        met = dict(await store.depends_on(tx, task_id))
        return TaskDependencies(task_id=task_id, depends_on=sorted(depends_on), dependencies_complete=all(met.values()))

    # Time

    async def timeout_status(self, principal: Principal, task_id: str) -> TimeoutStatus:
        """How the task stands against its timeout; time stops when it ends."""
        async with self._db.reader() as tx:
            task = await self.require(tx, principal, "task:read", task_id)
            now = await self._queue.clock(tx)
        elapsed = _elapsed(task, task.completed_at or now)
        remaining = None if task.timeout_seconds is None else max(task.timeout_seconds - elapsed, 0.0)
        running = task.status == queue_rules.RUNNING
        return TimeoutStatus(
            exists=True,
            task_id=task_id,
            status=task.status,
            timeout_seconds=task.timeout_seconds,
            started_at=task.started_at,
            elapsed_seconds=elapsed,
            elapsed_time=elapsed,
            time_remaining=remaining,
            is_timed_out=running and task.timeout_seconds is not None and elapsed > task.timeout_seconds,
            can_cancel=task.status not in queue_rules.ENDED,
        )

    async def set_timeout(self, principal: Principal, task_id: str, seconds: int) -> TimeoutSet:
        """Give each attempt so many seconds. Raises 400 when the task has ended."""
        async with self._db.uow() as tx:
            await self.require(tx, principal, "task:write", task_id)
            task = await self._queue.edit(tx, task_id, {"timeout_seconds": seconds})
            if task.status in queue_rules.ENDED:
                raise TASK_ENDED()
            return tx.result(TimeoutSet(task_id=task_id, timeout_seconds=seconds, status=task.status))

    async def at_work(self, principal: Principal, agent_id: str | None, *, timed_out: bool) -> list[TimedTask]:
        """The caller's tasks that are assigned or running, or of these the timed-out ones; the first 500."""
        organizations = principal.organizations_with("task:read")
        async with self._db.reader() as tx:
            rows = await store.at_work(tx, organizations, agent_id=agent_id, timed_out=timed_out, limit=WORK_LIMIT)
        return [_timed(task, now) for task, now in rows]

    async def clean_up(self, principal: Principal) -> CleanedUp:
        """End the caller's tasks that run too long, as the sweeper does for all. Raises 403 for who may end none."""
        organizations = principal.require_organizations_with("task:write")
        async with self._db.reader() as tx:
            rows = await store.at_work(tx, organizations, agent_id=None, timed_out=True, limit=WORK_LIMIT)
        cleaned = 0
        for task, _ in rows:
            cleaned += await self._claims.time_out(task.id)
        return CleanedUp(cleaned_count=cleaned, total_timed_out=len(rows))

    async def register_conversation(
        self, principal: Principal, task_id: str, body: ConversationBody
    ) -> ConversationRegistered:
        """Remember where the agent's conversation is kept."""
        async with self._db.uow() as tx:
            await self.require(tx, principal, "task:write", task_id)
            changes: dict[str, Any] = {"conversation_id": body.conversation_id}
            if body.persistence_dir:
                changes["persistence_dir"] = body.persistence_dir
            task = await self._queue.edit(tx, task_id, changes)
            if body.sandbox_id and body.sandbox_id != task.sandbox_id:
                # The sandbox of a task is a claim's to set: another one would not hold the lease.
                raise invalid("sandbox_id", "is not the sandbox of this task", body.sandbox_id)
            return tx.result(
                ConversationRegistered(success=True, task_id=task_id, conversation_id=body.conversation_id)
            )


def _priority(value: str) -> str:
    known = normal_priority(value)
    if known is None:
        raise invalid("priority", "must be one of CRITICAL, HIGH, MEDIUM, LOW", value)
    return known


def _elapsed(task: Task, until: datetime) -> float:
    return max((until - task.started_at).total_seconds(), 0.0) if task.started_at else 0.0


def _timed(task: Task, now: datetime) -> TimedTask:
    elapsed = _elapsed(task, now) if task.started_at else None
    remaining = None
    if task.timeout_seconds is not None and elapsed is not None:
        remaining = max(task.timeout_seconds - elapsed, 0.0)
    return TimedTask(
        id=task.id,
        ticket_id=task.ticket_id,
        phase_id=task.phase_id,
        task_type=task.task_type,
        description=task.description,
        priority=task.priority,
        status=task.status,
        assigned_agent_id=task.assigned_agent_id,
        timeout_seconds=task.timeout_seconds,
        started_at=task.started_at,
        elapsed_time=elapsed,
        time_remaining=remaining,
    )


def _out(task: Task, depends_on: list[str]) -> TaskOut:
    columns = {name: getattr(task, name) for name in TaskOut.model_fields if name != "dependencies"}
    return TaskOut(**columns, dependencies=Dependencies(depends_on=depends_on) if depends_on else None)
