"""How the merge of a task's branch stands: the part of a task that coordination decides and the queue writes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

from servicekit.db import Tx
from workflow_service import events
from workflow_service.queue import locks_store, rules, store
from workflow_service.queue.rules import Hold
from workflow_service.queue.service import QueueService, TaskChange, reset
from workflow_service.queue.tables import Task


class TaskMerges:
    """Merge states and execution membership of tasks. Joins the transactions of its callers."""

    def __init__(self, queue: QueueService) -> None:
        self._queue = queue

    async def lock(self, tx: Tx, task_id: str) -> Task | None:
        """One task with its execution locked."""
        found = await locks_store.lock(tx, task_id)
        return None if found is None else found[0]

    async def lock_execution(self, tx: Tx, execution_id: str | None) -> None:
        """Lets one transaction at a time change several tasks of an execution."""
        await locks_store.lock_execution(tx, execution_id)

    async def queued(self, tx: Tx, tasks: Iterable[Task], merge_id: str) -> None:
        """These branches are part of a merge now."""
        for task in tasks:
            task.merge_id = merge_id
            task.version += 1
            events.task_merge_changed(tx, task, rules.MERGE_PENDING, merge_id, None)
        await tx.session.flush()

    async def merged(self, tx: Tx, task: Task) -> list[TaskChange]:
        """The branch is in its target, with it the ones whose conflict it resolved; what waits for them goes on."""
        changed = []
        current: Task | None = task
        while current is not None:
            if current.merge_state != rules.MERGE_MERGED:
                current.merge_state = rules.MERGE_MERGED
                await self._touch(tx, current)
                events.task_merge_changed(tx, current, rules.MERGE_MERGED, current.merge_id, None)
                changed.append(TaskChange(current, current.status))
            current = await self._resolved_by(tx, current)
        await tx.session.flush()
        if changed:
            await self._queue.release_dependents(tx, [change.task.id for change in changed])
        return changed

    async def conflicted(self, tx: Tx, task: Task, resolution_task_id: str) -> None:
        """The branch conflicts; a further task resolves it."""
        task.merge_state = rules.MERGE_CONFLICTED
        task.resolution_task_id = resolution_task_id
        await self._touch(tx, task)
        await tx.session.flush()
        events.task_merge_changed(tx, task, rules.MERGE_CONFLICTED, task.merge_id, resolution_task_id)

    async def again(self, tx: Tx, task: Task) -> None:
        """The branch waits for another merge."""
        task.merge_state = rules.MERGE_PENDING
        task.merge_id = None
        task.merge_tries += 1
        await self._touch(tx, task)
        await tx.session.flush()

    async def lost(self, tx: Tx, task: Task, error: str) -> list[TaskChange]:
        """The branch cannot be merged, nor those whose conflict it should have resolved; what waits is held."""
        changed = []
        current: Task | None = task
        while current is not None:
            if current.status == rules.COMPLETED and current.merge_state != rules.MERGE_FAILED:
                current.merge_state = rules.MERGE_FAILED
                current.error_message = error
                await self._touch(tx, current)
                events.task_merge_changed(tx, current, rules.MERGE_FAILED, current.merge_id, current.resolution_task_id)
                changed.append(TaskChange(current, current.status))
            current = await self._resolved_by(tx, current)
        await tx.session.flush()
        if changed:
            await self._queue.hold_dependents(tx, [change.task.id for change in changed])
        return changed

    async def resolving_again(self, tx: Tx, task: Task) -> None:
        """The task that resolves a conflict is tried again: what waits for the conflict waits on."""
        current = await self._resolved_by(tx, task)
        while current is not None:
            current.merge_state = rules.MERGE_CONFLICTED
            await self._touch(tx, current)
            await tx.session.flush()
            await store.free_dependents(tx, [current.id], Hold.DEPENDENCY_FAILED)
            current = await self._resolved_by(tx, current)

    async def _resolved_by(self, tx: Tx, task: Task) -> Task | None:
        if task.resolves_task_id is None:
            return None
        found = await locks_store.lock_many(tx, [task.resolves_task_id])
        return found[0] if found else None

    async def _touch(self, tx: Tx, task: Task) -> None:
        task.version += 1
        task.updated_at = await store.now(tx)

    # Executions

    async def begin(
        self, tx: Tx, spec_id: str, execution_id: str, only: Collection[str] | None
    ) -> tuple[list[str], int]:
        """Put the tasks of a spec (or `only` some) to work that this execution has not; ended ones are pending again.

        Returns (tasks to do, how many the execution has now). What waits for something lost is held.
        """
        await locks_store.lock_execution(tx, execution_id)
        tasks = await locks_store.lock_of_spec(tx, spec_id)
        now = await store.now(tx)
        to_do = []
        for task in tasks:
            if task.execution_id == execution_id or (only is not None and task.id not in only):
                continue
            task.execution_id = execution_id
            task.holds &= ~int(Hold.SPEC_NOT_EXECUTING | Hold.SPEC_PAUSED | Hold.DEPENDENCY_FAILED)
            if task.status in (rules.FAILED, rules.CANCELLED):
                reset(task, now)
                to_do.append(task)
            elif task.status == rules.COMPLETED:
                if task.merge_state == rules.MERGE_FAILED and task.resolution_task_id is None:
                    task.merge_state, task.merge_id, task.merge_tries = rules.MERGE_PENDING, None, 0
                    to_do.append(task)
                elif task.merge_state == rules.MERGE_FAILED:
                    task.merge_state = rules.MERGE_CONFLICTED
                task.version += 1
            else:
                task.version += 1
                to_do.append(task)
        await tx.session.flush()
        if lost := await store.lost_above(tx, [task.id for task in to_do]):
            await self._queue.hold_dependents(tx, lost)
        await self._queue.announce(tx, [task.id for task in to_do])
        return [task.id for task in to_do], sum(task.execution_id == execution_id for task in tasks)

    async def left_to_do(self, tx: Tx, ids: Sequence[str]) -> list[str]:
        """Those of these tasks that are not completed, or whose branch could not be merged."""
        return await store.left_to_do(tx, ids)

    async def close(self, tx: Tx, execution_id: str) -> None:
        """The execution has ended: none of its tasks may be claimed or tried again by itself."""
        await store.hold_all_of_execution(tx, execution_id, Hold.SPEC_NOT_EXECUTING)

    async def cancel_rest(self, tx: Tx, execution_id: str, statuses: Sequence[str], reason: str) -> list[TaskChange]:
        """Cancel the tasks of an execution in these states."""
        tasks = await locks_store.lock_of_execution(tx, execution_id, statuses)
        return await self._queue.cancel(tx, tasks, await self.now(tx), reason)

    async def counts(self, tx: Tx, execution_id: str) -> Mapping[tuple[str, str, bool], int]:
        """Tasks by (status, merge state, held by a lost dependency)."""
        return await store.execution_counts(tx, execution_id)

    async def now(self, tx: Tx) -> datetime:
        """The database's clock."""
        return await store.now(tx)
