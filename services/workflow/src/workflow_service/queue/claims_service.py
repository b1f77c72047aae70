"""The claim side of the queue: hand out, renew, start, complete, fail, give back, take back.

An attempt is named by (task, attempt number, sandbox). Every call of one is checked against the row under its lock:
an older attempt changes nothing, the same call twice has one effect.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog

from servicekit.db import Database, Tx
from servicekit.errors import invalid
from workflow_service import events, metrics
from workflow_service.errors import ATTEMPT_SUPERSEDED, TASK_NOT_FOUND
from workflow_service.queue import claims_store, locks_store, rules, store
from workflow_service.queue.batches_service import ClaimBatches, ClaimKind, Slot
from workflow_service.queue.limits_service import LimitService
from workflow_service.queue.rules import Attempt, Lease
from workflow_service.queue.service import QueueService, TaskChange, end, requeue
from workflow_service.queue.tables import Task
from workflow_service.settings import Settings

log = structlog.get_logger(__name__)

MAX_CLAIM = 100
SWEEP_BATCH = 200
RESCORE_BATCH = 1000
# A release is part of the transaction that completes or merges; an older miss would have been found before.
MISSED_WITHIN_S = 3_600.0


@dataclass(frozen=True, slots=True)
class AttemptRef:
    """Which attempt is speaking."""

    task_id: str
    attempt: int
    sandbox_id: str


@dataclass(frozen=True, slots=True)
class AttemptAnswer:
    """What an attempt is told."""

    task_id: str
    attempt: int
    state: Attempt
    lease_expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class FailureAnswer:
    """What became of a failed attempt's task."""

    status: str
    will_retry: bool
    retry_at: datetime | None


class Claimed:
    """One claimed task: the columns of the claim as attributes, and what its sandbox is told of the work around it."""

    def __init__(self, record: Any) -> None:
        self._record = record
        self.surroundings: Mapping[str, Any] = {}

    @property
    def base_branch(self) -> str:
        """The branch that its work begins on and is merged into; tasks of the release before may not name it."""
        return self.target_branch or rules.ticket_target(self.ticket_id)

    def __getattr__(self, name: str) -> Any:
        try:
            return self._record[name]
        except KeyError as error:
            raise AttributeError(name) from error


Describe = Callable[[Sequence[str]], Awaitable[Mapping[str, Mapping[str, Any]]]]
"""Task ids → what each task's sandbox is told of the work around it. Opens a transaction of its own."""


class ClaimService:
    """Claims, leases and attempts."""

    def __init__(self, db: Database, queue: QueueService, limits: LimitService, settings: Settings) -> None:
        self._db = db
        self._queue = queue
        self._limits = limits
        self._settings = settings
        self._batches: ClaimBatches[Claimed] = ClaimBatches(self._claim, self._give_back)
        self._describe: Describe | None = None

    def described_by(self, describe: Describe) -> None:
        """Have a room above tell what surrounds a claimed task."""
        self._describe = describe

    async def claim(
        self,
        *,
        organization_ids: Sequence[str],
        agent_id: str,
        maximum: int,
        sandbox_ids: Sequence[str],
        capabilities: Sequence[str] = (),
        lease_s: int = 0,
        project_ids: Sequence[str] = (),
    ) -> list[Claimed]:
        """Hand out up to `maximum` claimable tasks. Raises 422 when there are fewer sandbox ids than that."""
        organizations = sorted(set(organization_ids))
        if not agent_id:
            raise invalid("agent_id", "must not be empty")
        if not organizations or maximum <= 0:
            return []
        maximum = min(maximum, MAX_CLAIM)
        if len(set(sandbox_ids)) < maximum:
            raise invalid("sandbox_ids", f"must hold {maximum} different ids")
        kind = ClaimKind(
            tuple(organizations), tuple(sorted(project_ids)), tuple(sorted(capabilities)), rules.lease_seconds(lease_s)
        )
        different = list(dict.fromkeys(sandbox_ids))[:maximum]
        return await self._batches.claim(kind, [Slot(sandbox_id, agent_id) for sandbox_id in different])

    async def _claim(self, kind: ClaimKind, slots: Sequence[Slot]) -> list[Claimed]:
        limits, fresh = await self._limits.current(kind.organization_ids)
        rooms = [limit.room for limit in limits]
        limited = self._settings.project_concurrency >= 0 or any(room is not None for room in rooms)
        async with self._db.uow() as tx:
            other_plans = await self._limits.save(tx, fresh)
            await claims_store.prepare(tx, kind.organization_ids if limited else ())
            records = await claims_store.claim(
                tx,
                organization_ids=kind.organization_ids,
                organization_limits=rooms,
                maximum=len(slots),
                project_cap=self._settings.project_concurrency,
                project_ids=kind.project_ids or None,
                capabilities=kind.capabilities,
                sandbox_ids=[slot.sandbox_id for slot in slots],
                agent_ids=[slot.agent_id for slot in slots],
                lease_s=kind.lease_s,
            )
            claimed = [Claimed(record) for record in records]
            metrics.leases(tx, "granted", len(claimed))
            metrics.waited(tx, [record["waited_s"] for record in records])
            for task in claimed:
                events.task_assigned(tx, task, task.assigned_agent_id, task.sandbox_id, task.attempt)
            for organization_id in other_plans:
                await self._queue.room_changed(tx, organization_id)
        if claimed and self._describe is not None:
            # Once for all claimers of the batch, so that a batch holds one connection at a time whatever its size.
            try:
                told = await self._describe([task.id for task in claimed])
            except BaseException:
                await asyncio.shield(self._give_back(claimed, "the claim could not be answered"))
                raise
            for task in claimed:
                task.surroundings = told.get(task.id, {})
        return claimed

    async def _give_back(self, tasks: Sequence[Claimed], reason: str = "claimer has gone") -> None:
        """Nobody will be answered with these tasks."""
        for task in sorted(tasks, key=lambda one: one.id):
            async with self._db.uow() as tx:
                await self.put_back(tx, AttemptRef(task.id, task.attempt, task.sandbox_id))
        log.info("claims_given_back", tasks=len(tasks), reason=reason)

    async def start(self, attempts: Sequence[AttemptRef]) -> list[AttemptAnswer]:
        """The attempts have begun: assigned → running. Starting twice is starting once."""
        answers = []
        for ref in sorted(attempts, key=lambda one: one.task_id):
            async with self._db.uow() as tx:
                answers.append(await self.start_one(tx, ref))
        return answers

    async def start_one(self, tx: Tx, ref: AttemptRef) -> AttemptAnswer:
        """As `start`, joining a transaction."""
        found = await locks_store.lock(tx, ref.task_id)
        if found is None:
            return AttemptAnswer(ref.task_id, ref.attempt, Attempt.LOST)
        task, now = found
        state = _state(task, ref)
        if state is Attempt.HELD and task.status == rules.ASSIGNED:
            task.status = rules.RUNNING
            task.started_at = now
            task.start_failures, task.start_error = 0, None
            task.updated_at = now
            task.version += 1
            if task.timeout_seconds is not None:
                task.timeout_at = now + timedelta(seconds=task.timeout_seconds)
            events.task_started(tx, task, task.assigned_agent_id or "", ref.sandbox_id, ref.attempt)
            await self._queue.tell(tx, [TaskChange(task, rules.ASSIGNED)])
        return AttemptAnswer(ref.task_id, ref.attempt, state, task.lease_expires_at)

    async def heartbeat(self, attempts: Sequence[AttemptRef], lease_s: int) -> list[AttemptAnswer]:
        """Renew the leases that are still held; tell each attempt how it stands."""
        if not attempts:
            return []
        async with self._db.uow() as tx:
            renewed = await claims_store.renew(
                tx, [(one.task_id, one.attempt, one.sandbox_id) for one in attempts], rules.lease_seconds(lease_s)
            )
            metrics.leases(tx, "renewed", len(renewed))
            metrics.leases(tx, "lost", len(attempts) - len(renewed))
            rows = await claims_store.leases(tx, [one.task_id for one in attempts])
        answers = []
        for ref in attempts:
            row = rows.get(ref.task_id)
            if row is None:
                answers.append(AttemptAnswer(ref.task_id, ref.attempt, Attempt.LOST))
                continue
            lease = Lease(row["status"], row["attempt"], row["sandbox_id"])
            state = rules.attempt_state(lease, ref.attempt, ref.sandbox_id)
            expires = renewed.get(ref.task_id) if state is Attempt.HELD else None
            answers.append(AttemptAnswer(ref.task_id, ref.attempt, state, expires))
        return answers

    async def complete(
        self, ref: AttemptRef, result: dict[str, Any], branch: str, head_sha: str
    ) -> tuple[str, Sequence[str]]:
        """The attempt finished its work; returns the task's state and the ids of what waits for no task any more.

        Raises 400 for an attempt that lost the task.
        """
        async with self._db.uow() as tx:
            status = await self.complete_one(tx, ref, result, branch, head_sha)
            return status, await claims_store.let_go(tx, ref.task_id)

    async def complete_one(
        self,
        tx: Tx,
        ref: AttemptRef,
        result: dict[str, Any],
        branch: str,
        head_sha: str,
        *,
        finished: bool = True,
    ) -> str:
        """As `complete`, joining a transaction.

        `finished`: vcs has finished the attempt's branch; otherwise it does so before it merges, and knows its head.
        """
        task, now = await self._held(tx, ref)
        if task.status == rules.COMPLETED:
            return task.status
        if task.status in rules.ENDED:
            raise ATTEMPT_SUPERSEDED(status=task.status)
        old_status = task.status
        if head_sha and not await store.keeps_repository(tx, task.project_id):
            # A worker's own repository, in which vcs can merge nothing.
            head_sha = ""
        end(task, rules.COMPLETED, now)
        task.started_at = task.started_at or task.claimed_at
        task.error_message = None
        task.result = {**(task.result or {}), **result}
        merges = bool(head_sha) or (not finished and await store.has_repository(tx, task.project_id))
        if finished or merges:
            task.branch = branch or task.branch
        task.head_sha = head_sha or None
        # Tasks of the release before may lack the branch of their ticket.
        task.target_branch = task.target_branch or rules.ticket_target(task.ticket_id)
        task.merge_state = rules.MERGE_PENDING if merges else rules.MERGE_NONE
        metrics.task(tx, "completed")
        events.task_completed(
            tx, task, old_status, task.assigned_agent_id or "", ref.sandbox_id, ref.attempt, head_sha, bool(task.result)
        )
        await tx.session.flush()
        if not merges:
            await self._queue.release_dependents(tx, [task.id])
        await self._queue.tell(tx, [TaskChange(task, old_status)])
        return task.status

    async def fail(self, ref: AttemptRef, error: str, result: dict[str, Any], permanent: bool) -> FailureAnswer:
        """The attempt failed; tried again with backoff while retries are left and the error is not permanent."""
        async with self._db.uow() as tx:
            return await self.fail_one(tx, ref, error, result, permanent)

    async def fail_one(
        self, tx: Tx, ref: AttemptRef, error: str, result: dict[str, Any], permanent: bool
    ) -> FailureAnswer:
        """As `fail`, joining a transaction."""
        found = await locks_store.lock(tx, ref.task_id)
        if found is None:
            raise TASK_NOT_FOUND()
        task, now = found
        state = _state(task, ref)
        if state is Attempt.ENDED and task.status == rules.FAILED:
            return FailureAnswer(task.status, False, None)
        if state is Attempt.LOST and task.status == rules.PENDING and task.attempt == ref.attempt:
            # The same report again: its first delivery has queued the task for another attempt.
            return FailureAnswer(task.status, True, task.not_before)
        if state is not Attempt.HELD:
            raise ATTEMPT_SUPERSEDED(status=task.status)
        if result:
            task.result = {**(task.result or {}), **result}
        return await self._after_failure(tx, task, now, error, permanent, "agent")

    async def _after_failure(
        self, tx: Tx, task: Task, now: datetime, error: str, permanent: bool, failed_by: str
    ) -> FailureAnswer:
        old_status, sandbox_id = task.status, task.sandbox_id or ""
        decision = rules.after_failure(
            task.retry_count, task.max_retries, error, permanent=permanent, jitter=random.uniform(0.75, 1.25)
        )
        if not decision.retry:
            await self._queue.fail(tx, task, now, error, failed_by)
            await self._queue.tell(tx, [TaskChange(task, old_status)])
            return FailureAnswer(task.status, False, None)
        requeue(task, now)
        task.error_message = error
        task.retry_count += 1
        task.releases = 0
        task.not_before = now + timedelta(seconds=decision.delay_s)
        task.rescore_at = now
        metrics.task(tx, "retried")
        events.task_retry_scheduled(
            tx, task, old_status, sandbox_id, task.attempt, task.retry_count, task.max_retries, task.not_before, error
        )
        await self._queue.tell(tx, [TaskChange(task, old_status)])
        return FailureAnswer(task.status, True, task.not_before)

    async def release(
        self, attempts: Sequence[AttemptRef], reason: str, *, start_failed: bool = False
    ) -> list[AttemptAnswer]:
        """Give tasks back without counting a retry; another attempt may take them at once the first times.

        `start_failed`: no sandbox could be made. They wait longer each time and fail after so many times in a row.
        """
        answers = []
        for ref in sorted(attempts, key=lambda one: one.task_id):
            async with self._db.uow() as tx:
                state = await self.release_one(tx, ref, reason, start_failed=start_failed)
            answers.append(AttemptAnswer(ref.task_id, ref.attempt, state))
        if reason:
            log.info("tasks_released", tasks=len(answers), reason=reason[:200])
        return answers

    async def release_one(self, tx: Tx, ref: AttemptRef, reason: str, *, start_failed: bool = False) -> Attempt:
        """Give one task back if this attempt still holds it, as `release`. Joins a transaction."""
        found = await locks_store.lock(tx, ref.task_id)
        state = Attempt.LOST if found is None else _state(found[0], ref)
        if found is None or state is not Attempt.HELD:
            return state
        if start_failed:
            await self._start_failed(tx, *found, reason)
        else:
            await self._released(tx, *found, reason)
        return Attempt.LOST

    async def put_back(self, tx: Tx, ref: AttemptRef) -> None:
        """Have a task claimable again that this attempt holds and that no sandbox was ever told of. Joins."""
        found = await locks_store.lock(tx, ref.task_id)
        if found is not None and _state(found[0], ref) is Attempt.HELD:
            await self._requeue(tx, *found, "released")

    async def _released(self, tx: Tx, task: Task, now: datetime, reason: str) -> None:
        held_s = (now - task.claimed_at).total_seconds() if task.claimed_at else 0.0
        task.releases = rules.releases_in_row(task.releases, held_s)
        if task.releases >= self._settings.release_limit:
            error = f"The task was given back {task.releases} times in a row: {reason[:500] or 'no reason was told'}"
            await self._give_up(tx, task, now, error, "release")
            return
        pause_s = rules.release_pause_s(task.releases, self._settings.free_releases, random.uniform(0.75, 1.25))
        await self._requeue(tx, task, now, "released", now + timedelta(seconds=pause_s) if pause_s else None)

    async def _give_up(self, tx: Tx, task: Task, now: datetime, error: str, failed_by: str) -> None:
        old_status = task.status
        await self._queue.fail(tx, task, now, error, failed_by)
        await self._queue.tell(tx, [TaskChange(task, old_status)])

    async def _start_failed(self, tx: Tx, task: Task, now: datetime, reason: str) -> None:
        task.start_failures += 1
        task.start_error = reason[:500]
        if task.start_failures >= self._settings.start_failure_limit:
            error = f"The task could not be started, {task.start_failures} times in a row: {task.start_error}"
            await self._give_up(tx, task, now, error, "start")
            return
        pause_s = rules.start_backoff_s(task.start_failures, random.uniform(0.75, 1.25))
        await self._requeue(tx, task, now, "start_failed", now + timedelta(seconds=pause_s))

    async def _requeue(
        self, tx: Tx, task: Task, now: datetime, reason: str, not_before: datetime | None = None
    ) -> None:
        old_status, agent_id, sandbox_id = task.status, task.assigned_agent_id or "", task.sandbox_id or ""
        requeue(task, now)
        task.not_before = not_before
        events.task_requeued(tx, task, old_status, agent_id, sandbox_id, task.attempt, reason)
        await tx.session.flush()
        await self._queue.announce(tx, [task.id])
        await self._queue.tell(tx, [TaskChange(task, old_status)])

    async def _held(self, tx: Tx, ref: AttemptRef) -> tuple[Task, datetime]:
        found = await locks_store.lock(tx, ref.task_id)
        if found is None:
            raise TASK_NOT_FOUND()
        task, now = found
        if _state(task, ref) in (Attempt.LOST, Attempt.CANCELLED):
            raise ATTEMPT_SUPERSEDED(status=task.status)
        return task, now

    # Clock work

    async def sweep(self) -> int:
        """Take back expired leases, end tasks that run too long, end backoffs, repair missed releases."""
        async with self._db.reader() as tx:
            expired = await claims_store.expired(tx, SWEEP_BATCH)
            timed_out = await claims_store.timed_out(tx, SWEEP_BATCH)
        for task_id in expired:
            await self._take_back(task_id)
        for task_id in timed_out:
            await self.time_out(task_id)
        async with self._db.uow() as tx:
            waiting = await claims_store.end_backoff(tx, SWEEP_BATCH)
            await self._queue.announce(tx, waiting)
        return len(expired) + len(timed_out) + len(waiting)

    async def repair(self) -> int:
        """Let go what waits for tasks that are completed and merged, where the release itself was missed."""
        async with self._db.uow() as tx:
            missed = await claims_store.missed_releases(tx, MISSED_WITHIN_S, SWEEP_BATCH)
            if missed:
                log.warning("missed_releases", tasks=len(missed))
                await self._queue.release_dependents(tx, missed)
        return len(missed)

    async def rescore(self) -> int:
        """Bring the scores that time has changed up to date."""
        async with self._db.uow() as tx:
            rows = await claims_store.due_for_rescore(tx, RESCORE_BATCH)
            now = await store.now(tx)
            scores = []
            for row in rows:
                scored = rules.Scored(
                    row["priority"],
                    row["created_at"],
                    row["retry_count"],
                    row["max_retries"],
                    row["dependents"],
                    row["deadline_at"],
                )
                scores.append((row["id"], rules.score(scored, now), rules.rescore_at(scored, now)))
            if scores:
                await claims_store.save_scores(tx, scores)
        return len(rows)

    async def _take_back(self, task_id: str) -> None:
        async with self._db.uow() as tx:
            found = await locks_store.lock(tx, task_id)
            if found is None:
                return
            task, now = found
            if task.status not in rules.LEASED or task.lease_expires_at is None or task.lease_expires_at >= now:
                return
            task.leases_lost += 1
            metrics.leases(tx, "expired", 1)
            if task.leases_lost >= self._settings.lease_loss_limit:
                error = f"The sandbox of this task was lost {task.leases_lost} times."
                await self._give_up(tx, task, now, error, "lease")
                return
            await self._requeue(tx, task, now, "lease_expired")

    async def time_out(self, task_id: str) -> bool:
        """End an attempt that runs longer than its task allows; False when it does not."""
        async with self._db.uow() as tx:
            found = await locks_store.lock(tx, task_id)
            if found is None:
                return False
            task, now = found
            if task.status != rules.RUNNING or task.timeout_at is None or task.timeout_at >= now:
                return False
            elapsed_s = (now - task.started_at).total_seconds() if task.started_at else 0.0
            error = f"The task timed out: it ran {elapsed_s:.0f} s of {task.timeout_seconds} s."
            await self._after_failure(tx, task, now, error, False, "timeout")
            return True


def _state(task: Task, ref: AttemptRef) -> Attempt:
    return rules.attempt_state(Lease(task.status, task.attempt, task.sandbox_id), ref.attempt, ref.sandbox_id)
