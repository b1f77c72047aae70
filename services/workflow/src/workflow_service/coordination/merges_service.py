"""The merge queue of a branch: one merge at a time, the branches it takes in the order of their dependencies.

What is merged into is the branch of a spec, or that of a ticket whose tasks belong to no spec.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from omoios.vcs.v1 import vcs_pb2
from servicekit.db import Database, Tx
from servicekit.errors import AppError, Kind
from servicekit.ids import new_id
from workflow_service.clients import VcsClient
from workflow_service.coordination import rules, store
from workflow_service.coordination.tables import Merge
from workflow_service.dag import rules as dag
from workflow_service.queue import rules as queue_rules
from workflow_service.queue.draft_rules import TaskDraft
from workflow_service.queue.merges_service import TaskMerges
from workflow_service.queue.rules import Hold
from workflow_service.queue.service import QueueService, TaskChange
from workflow_service.queue.tables import Task

DUE_BATCH = 50
# vcs takes no more branches in one merge; the rest goes with the next.
MAX_ITEMS = 500
_AGAIN = frozenset({Kind.UNAVAILABLE, Kind.DEADLINE, Kind.INTERNAL, Kind.RATE_LIMITED})


class MergeQueue:
    """Asks vcs for merges by intent rows, and takes what vcs says of them."""

    def __init__(self, db: Database, queue: QueueService, tasks: TaskMerges, vcs: VcsClient) -> None:
        self._db = db
        self._queue = queue
        self._tasks = tasks
        self._vcs = vcs
        self.queued = db.hint("workflow_merges")

    async def queue(self, tx: Tx, project_id: str, target_branch: str) -> None:
        """Ask for a merge of all branches that wait to be merged into this one, unless a merge into it is open."""
        waiting = await store.merges_to_do(tx, project_id, target_branch)
        if not waiting:
            return
        by_id = {task.id: task for task in waiting}
        order = dag.topological(list(by_id), await store.edges_among(tx, list(by_id)))[:MAX_ITEMS]
        merge = Merge(
            id=new_id("merge-"),
            organization_id=waiting[0].organization_id,
            project_id=project_id,
            spec_id=next((task.spec_id for task in waiting if task.spec_id), ""),
            target_branch=target_branch,
            items=[_item(by_id[task_id]) for task_id in order],
        )
        if await store.add_merge(tx, merge):
            tx.on_commit(self.queued.committed)
            await self._tasks.queued(tx, [by_id[task_id] for task_id in order], merge.id)

    async def run_due(self) -> int:
        """Send intents to vcs; ask after merges without news."""
        async with self._db.reader() as tx:
            due = await store.due_merges(tx, DUE_BATCH)
        for merge in due:
            if merge.state == "intent":
                await self._start(merge)
            else:
                await self._ask_after(merge)
        return len(due)

    async def _start(self, merge: Merge) -> None:
        request = vcs_pb2.StartMergeRequest(
            merge_id=merge.id,
            project_id=merge.project_id,
            organization_id=merge.organization_id,
            spec_id=merge.spec_id,
            target_branch=merge.target_branch,
            items=[vcs_pb2.MergeItem(**item) for item in merge.items],
        )
        error: AppError | None = None
        try:
            await self._vcs.start_merge(request)
        except AppError as refused:
            error = refused
        if error is not None and error.kind not in _AGAIN:
            async with self._db.uow() as tx:
                await self.merge_finished(tx, merge.id, [], [item["task_id"] for item in merge.items], error.detail)
            return
        async with self._db.uow() as tx:
            row = await store.get_merge(tx, merge.id, lock=True)
            if row is None or row.state not in ("intent", "started"):
                return
            delay_s = rules.STUCK_S if error is None else rules.merge_delay_s(row.tries)
            row.tries += 1
            row.error = error.detail if error else None
            row.due_at = await store.now(tx) + timedelta(seconds=delay_s)
            if error is None:
                row.state = "started"

    async def _ask_after(self, merge: Merge) -> None:
        try:
            found = await self._vcs.merges([merge.id])
        except AppError:
            found = None
        if found is None or (found and found[0].state in (vcs_pb2.MERGE_STATE_QUEUED, vcs_pb2.MERGE_STATE_RUNNING)):
            async with self._db.uow() as tx:
                row = await store.get_merge(tx, merge.id, lock=True)
                if row is not None:
                    row.due_at = await store.now(tx) + timedelta(seconds=rules.STUCK_S)
            return
        if not found:
            # Unknown there: the first call was lost, and the same id is one merge.
            await self._start(merge)
            return
        outcomes = {item.task_id: item for item in found[0].outcomes}
        async with self._db.uow() as tx:
            changes: list[TaskChange] = []
            merged = [one for one, item in outcomes.items() if item.outcome in ("merged", "empty")]
            for one, item in outcomes.items():
                if item.outcome == "conflicted":
                    changes += await self.conflicted(tx, merge.id, one, "", list(item.conflicting_files))
            failed = [item["task_id"] for item in merge.items if item["task_id"] not in outcomes]
            failed += [one for one, item in outcomes.items() if item.outcome == "failed"]
            changes += await self.finished(tx, merge.id, merged, failed, "vcs reported the merge as ended")
            await self._queue.tell(tx, changes)

    # What vcs says

    async def branch_merged(self, tx: Tx, merge_id: str, task_id: str) -> None:
        """As `merged`, and the work goes on."""
        await self._queue.tell(tx, await self.merged(tx, merge_id, task_id))

    async def branch_conflicted(self, tx: Tx, merge_id: str, task_id: str, branch: str, files: Sequence[str]) -> None:
        """As `conflicted`, and the work goes on."""
        await self._queue.tell(tx, await self.conflicted(tx, merge_id, task_id, branch, files))

    async def merge_finished(
        self, tx: Tx, merge_id: str, merged: Sequence[str], failed: Sequence[str], error: str
    ) -> None:
        """As `finished`, and the work goes on."""
        await self._queue.tell(tx, await self.finished(tx, merge_id, merged, failed, error))

    async def merged(self, tx: Tx, merge_id: str, task_id: str) -> list[TaskChange]:
        """A branch of this merge is in its target. Anything but the task's current merge changes nothing."""
        task = await self._tasks.lock(tx, task_id)
        if task is None or task.merge_id != merge_id or task.status != queue_rules.COMPLETED:
            return []
        if task.merge_state not in (queue_rules.MERGE_PENDING, queue_rules.MERGE_FAILED):
            return []
        return await self._tasks.merged(tx, task)

    async def conflicted(
        self, tx: Tx, merge_id: str, task_id: str, branch: str, files: Sequence[str]
    ) -> list[TaskChange]:
        """A branch of this merge conflicts: a task is made that does its work again on top of the target.

        What depended on the branch waits for that task. After three such tasks the branch is given up.
        """
        task = await self._tasks.lock(tx, task_id)
        if task is None or task.merge_id != merge_id or task.merge_state != queue_rules.MERGE_PENDING:
            return []
        depth, above = 1, task
        while above.resolves_task_id is not None and depth <= rules.MAX_RESOLUTIONS:
            found = await self._tasks.lock(tx, above.resolves_task_id)
            if found is None:
                break
            depth, above = depth + 1, found
        if depth > rules.MAX_RESOLUTIONS:
            return await self._tasks.lost(tx, task, f"The branch conflicted {depth} times.")
        if task.holds & Hold.SPEC_NOT_EXECUTING:
            return await self._tasks.lost(tx, task, "The branch conflicts, and its execution has ended.")
        draft = _resolution(task, branch or task.branch or "", list(files))
        # The conflict is written first: a task that is made must find its reason.
        await self._tasks.conflicted(tx, task, draft.id)
        await self._queue.create(tx, [draft])
        return []

    async def finished(
        self, tx: Tx, merge_id: str, merged: Sequence[str], failed: Sequence[str], error: str
    ) -> list[TaskChange]:
        """The merge has ended: its place is free for the next. Twice is once."""
        merge = await store.get_merge(tx, merge_id)
        if merge is None:
            return []
        changes: list[TaskChange] = []
        for task_id in merged:
            changes += await self.merged(tx, merge_id, task_id)
        for task_id in failed:
            task = await self._tasks.lock(tx, task_id)
            if task is None or task.merge_id != merge_id or task.merge_state != queue_rules.MERGE_PENDING:
                continue
            if task.merge_tries + 1 >= rules.MAX_MERGE_TRIES:
                changes += await self._tasks.lost(tx, task, error or "The branch could not be merged.")
            else:
                await self._tasks.again(tx, task)
        merge = await store.get_merge(tx, merge_id, lock=True)
        assert merge is not None
        if merge.state in ("intent", "started"):
            merge.state = "finished" if merged or not failed else "failed"
            merge.error = error or None
            merge.finished_at = await store.now(tx)
            await tx.session.flush()
        await self.queue(tx, merge.project_id, merge.target_branch)
        return changes

    async def repair(self) -> int:
        """Queue merges for branches that wait for one while none is open."""
        async with self._db.reader() as tx:
            waiting = await store.targets_with_merges_to_do(tx, DUE_BATCH)
        for project_id, target_branch, together in waiting:
            async with self._db.uow() as tx:
                await self._tasks.lock_execution(tx, together)
                await self.queue(tx, project_id, target_branch)
        return len(waiting)


def _item(task: Task) -> dict[str, Any]:
    return {
        "task_id": task.id,
        "ticket_id": task.ticket_id,
        "branch": task.branch or "",
        "head_sha": task.head_sha or "",
        "attempt": task.attempt,
    }


def _resolution(task: Task, branch: str, files: list[str]) -> TaskDraft:
    conflict = {"task_id": task.id, "branch": branch, "head_sha": task.head_sha, "files": files}
    listed = ", ".join(files[:20]) or "unknown files"
    return TaskDraft(
        id=new_id(),
        organization_id=task.organization_id,
        project_id=task.project_id,
        ticket_id=task.ticket_id,
        title=f"Resolve the conflict of: {task.title or task.task_type}"[:500],
        description=f"{branch} conflicts with {task.target_branch} in {listed}. Do its work on top of the target.",
        task_type="resolve_conflict",
        phase_id=task.phase_id,
        priority="HIGH",
        holds=task.holds & int(Hold.SPEC_PAUSED),
        spec_id=task.spec_id,
        execution_id=task.execution_id,
        target_branch=task.target_branch,
        required_capabilities=tuple(task.required_capabilities),
        owned_files=tuple(task.owned_files),
        execution_config=dict(task.execution_config),
        context={"conflict": conflict},
        max_retries=task.max_retries,
        timeout_seconds=task.timeout_seconds,
        resolves_task_id=task.id,
        parent_task_id=task.id,
    )
