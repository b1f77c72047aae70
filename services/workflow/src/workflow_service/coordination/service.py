"""Executions of specs: begin, pause, cancel, finish; and what follows when tasks change."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from servicekit.db import Database, Tx
from workflow_service import events, metrics
from workflow_service.coordination import rules, store
from workflow_service.coordination.merges_service import MergeQueue
from workflow_service.coordination.rules import Tally
from workflow_service.coordination.tables import Execution
from workflow_service.engine.service import EngineService
from workflow_service.queue import rules as queue_rules
from workflow_service.queue.merges_service import TaskMerges
from workflow_service.queue.rules import Hold
from workflow_service.queue.service import QueueService, TaskChange
from workflow_service.queue.tables import Task

SWEEP_BATCH = 200


class ExecutionFollower(Protocol):
    """A room above that keeps the spec in step with its execution."""

    async def execution_changed(self, tx: Tx, execution: Execution, found: Tally) -> None:
        """The execution went on, was paused or ended, in this transaction."""


class CoordinationService:
    """One execution of a spec at a time; it ends once, when all of its tasks have ended and are merged."""

    def __init__(
        self, db: Database, queue: QueueService, engine: EngineService, tasks: TaskMerges, merges: MergeQueue
    ) -> None:
        self._db = db
        self._queue = queue
        self._engine = engine
        self._tasks = tasks
        self._merges = merges
        self._followers: list[ExecutionFollower] = []

    def follow(self, follower: ExecutionFollower) -> None:
        """Have `follower` told of every change of an execution."""
        self._followers.append(follower)

    async def open_of(self, tx: Tx, spec_id: str) -> Execution | None:
        """The open execution of a spec."""
        return await store.open_of_spec(tx, spec_id)

    async def get(self, tx: Tx, execution_id: str) -> Execution | None:
        """One execution."""
        return await store.get(tx, execution_id)

    async def lock_open(self, tx: Tx, spec_id: str) -> str | None:
        """The id of the spec's open execution, locked so that it does not end while tasks are added to it.

        One transaction at a time adds tasks to a spec.
        """
        await self._tasks.lock_execution(tx, spec_id)
        found = await store.open_of_spec(tx, spec_id)
        execution = await self._locked(tx, found.id) if found else None
        return execution.id if execution is not None and execution.state in rules.OPEN else None

    async def begin(self, tx: Tx, execution: Execution, only: Collection[str] | None = None) -> list[str] | None:
        """Begin an execution whose reservation is held, of all tasks of its spec or of `only` some.

        Returns the tasks to do, None when another execution is open.
        """
        if not await store.add_execution(tx, execution):
            return None
        to_do, total = await self._tasks.begin(tx, execution.spec_id, execution.id, only)
        if to_do:
            row = await self._locked(tx, execution.id)
            assert row is not None
            metrics.execution(tx, "started")
            events.execution_started(tx, row, total)
            # Queues merges, tells the spec, and ends at once what waits for something lost.
            await self._go_on(tx, row.id)
        return to_do

    async def join(self, tx: Tx, spec_id: str, task_ids: Sequence[str]) -> list[str]:
        """Have the open execution of a spec take in these tasks; those that it did not have before."""
        execution_id = await self.lock_open(tx, spec_id)
        if execution_id is None or not task_ids:
            return []
        joined, _ = await self._tasks.begin(tx, spec_id, execution_id, task_ids)
        execution = await store.get(tx, execution_id)
        if execution is not None and execution.state == "paused":
            await self._queue.hold_execution(tx, execution_id, Hold.SPEC_PAUSED, True)
        await self._go_on(tx, execution_id)
        return joined

    async def left_to_do(self, tx: Tx, task_ids: Sequence[str]) -> list[str]:
        """Those of these tasks that are not completed, or whose branch could not be merged."""
        return await self._tasks.left_to_do(tx, task_ids)

    async def pause(self, tx: Tx, spec_id: str, reason: str) -> Execution | None:
        """Nothing new is claimed; what runs goes on. None when nothing runs; pausing twice is pausing once."""
        return await self._set_paused(tx, spec_id, True, reason)

    async def resume(self, tx: Tx, spec_id: str) -> Execution | None:
        """Claims go on. None when nothing is open."""
        return await self._set_paused(tx, spec_id, False, "")

    async def _set_paused(self, tx: Tx, spec_id: str, paused: bool, reason: str) -> Execution | None:
        found = await store.open_of_spec(tx, spec_id)
        execution = await self._locked(tx, found.id) if found else None
        if execution is None or execution.state not in rules.OPEN:
            return None
        if execution.state != ("paused" if paused else "running"):
            execution.state = "paused" if paused else "running"
            execution.reason = reason or None
            execution.version += 1
            await tx.session.flush()
            await self._queue.hold_execution(tx, execution.id, Hold.SPEC_PAUSED, paused)
            if paused:
                events.execution_paused(tx, execution, reason)
            else:
                events.execution_resumed(tx, execution)
            await self._tell(tx, execution)
        return execution

    async def cancel(self, tx: Tx, spec_id: str, reason: str) -> Execution | None:
        """End an execution: waiting tasks are cancelled, running ones too, their sandboxes by event. None when none."""
        found = await store.open_of_spec(tx, spec_id)
        execution = await self._locked(tx, found.id) if found else None
        if execution is None or execution.state not in rules.OPEN:
            return None
        await self._tasks.cancel_rest(tx, execution.id, rules.NOT_ENDED, reason)
        await self._finish(tx, execution, "cancelled", reason)
        return execution

    async def tasks_changed(self, tx: Tx, changes: Sequence[TaskChange]) -> None:
        """Go on after tasks started, ended or were queued again."""
        for change in changes:
            task, status = change.task, change.task.status
            if status == queue_rules.RUNNING:
                await self._engine.work_started(tx, task.ticket_id)
            elif task.resolves_task_id is not None:
                await self._resolution_changed(tx, change)
        # Before the end of an execution, after which its cancelled tasks count as work left to do.
        for change in changes:
            task = change.task
            if queue_rules.dependency_met(task.status, task.merge_state):
                await self._engine.work_ended(tx, task.ticket_id, task.phase_id)
            elif task.status == queue_rules.CANCELLED:
                await self._engine.work_dropped(tx, task.ticket_id)
        for execution_id in dict.fromkeys(change.task.execution_id for change in changes):
            if execution_id is not None:
                await self._go_on(tx, execution_id)
        for project_id, target_branch in dict.fromkeys(
            (change.task.project_id, change.task.target_branch) for change in changes if _waits_for_merge(change.task)
        ):
            await self._merges.queue(tx, project_id, target_branch or "")

    async def _resolution_changed(self, tx: Tx, change: TaskChange) -> None:
        task, status = change.task, change.task.status
        if status == queue_rules.COMPLETED and task.merge_state == queue_rules.MERGE_NONE:
            # It found nothing to change: the target holds all that the conflicting branch wanted.
            await self.tasks_changed(tx, await self._tasks.merged(tx, task))
        elif status in (queue_rules.FAILED, queue_rules.CANCELLED):
            await self._tasks.lost(tx, task, "The conflict was not resolved.")
        elif rules.tried_again(change.old_status, status, task.merge_state):
            await self._tasks.resolving_again(tx, task)

    async def _go_on(self, tx: Tx, execution_id: str) -> None:
        execution = await self._locked(tx, execution_id)
        if execution is None or execution.state not in rules.OPEN:
            return
        await self._merges.queue(tx, execution.project_id, execution.target_branch)
        found = rules.tally(await self._tasks.counts(tx, execution_id))
        outcome = rules.outcome(found)
        if outcome is None:
            await self._tell(tx, execution, found)
            return
        if found.stuck:
            await self._tasks.cancel_rest(tx, execution_id, ("pending",), "dependency_failed")
        await self._finish(tx, execution, outcome, None)

    async def _finish(self, tx: Tx, execution: Execution, outcome: str, reason: str | None) -> None:
        """Once: the row is locked and was open."""
        found = rules.tally(await self._tasks.counts(tx, execution.id))
        execution.state = outcome
        execution.reason = reason
        execution.finished_at = await store.now(tx)
        execution.tasks_completed = found.done
        execution.tasks_failed = found.failed
        execution.tasks_cancelled = found.cancelled
        execution.version += 1
        await tx.session.flush()
        await self._tasks.close(tx, execution.id)
        metrics.execution(tx, execution.state)
        events.execution_finished(tx, execution)
        await self._tell(tx, execution, found)

    async def restate(
        self, tx: Tx, execution_id: str, spec_id: str, project_id: str, organization_id: str | None
    ) -> None:
        """Tell how an execution stands, for somebody who missed its end."""
        execution = await store.get(tx, execution_id)
        if execution is None:
            events.execution_unknown(tx, execution_id, spec_id, project_id, organization_id)
        elif execution.organization_id == organization_id:
            events.execution_restated(tx, execution)

    async def commits_linked(self, tx: Tx, commits: Iterable[tuple[str, int, int]]) -> None:
        """Count commits of tasks: (task, lines added, removed) of each that was linked."""
        if linked := rules.by_task(commits):
            await store.count_commits(tx, linked)

    async def sweep(self) -> int:
        """Finish executions and queue merges where the transaction that should have done so did not."""
        after, done = "", 0
        while True:
            async with self._db.reader() as tx:
                open_now = await store.open_executions(tx, after, SWEEP_BATCH)
            for execution_id in open_now:
                async with self._db.uow() as tx:
                    await self._go_on(tx, execution_id)
            done += len(open_now)
            if len(open_now) < SWEEP_BATCH:
                return done
            after = open_now[-1]

    async def _locked(self, tx: Tx, execution_id: str) -> Execution | None:
        await self._tasks.lock_execution(tx, execution_id)
        return await store.get(tx, execution_id, lock=True)

    async def _tell(self, tx: Tx, execution: Execution, found: Tally | None = None) -> None:
        if found is None:
            found = rules.tally(await self._tasks.counts(tx, execution.id))
        for follower in self._followers:
            await follower.execution_changed(tx, execution, found)


def _waits_for_merge(task: Task) -> bool:
    """Whether the branch of a task that no execution goes on with has been asked of no merge."""
    return (
        task.execution_id is None
        and task.status == queue_rules.COMPLETED
        and task.merge_state == queue_rules.MERGE_PENDING
        and task.merge_id is None
    )
