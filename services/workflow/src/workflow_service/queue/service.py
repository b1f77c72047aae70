"""Use cases that change tasks from the outside: making, holding, cancelling, failing, trying again, dependencies.

Lock order, everywhere: an organization's dependencies, the execution (for tasks of no spec: the work of their
ticket), then tasks in the order of their ids, then tickets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from servicekit.db import Tx
from workflow_service import events, metrics
from workflow_service.dag import rules as dag
from workflow_service.errors import (
    DEPENDENCIES_FIXED,
    DEPENDENCY_CYCLE,
    DEPENDENCY_NOT_FOUND,
    EXECUTION_ENDED,
    TASK_ENDED,
    TASK_NOT_CANCELLABLE,
    TASK_NOT_FOUND,
    TASK_NOT_RETRYABLE,
)
from workflow_service.projects.tables import Project
from workflow_service.queue import drafts_service as drafts_of
from workflow_service.queue import locks_store, rules, store
from workflow_service.queue.draft_rules import TaskDraft
from workflow_service.queue.rules import Hold
from workflow_service.queue.tables import Task

# A check for cycles reads at most this many dependencies; no plan comes near.
MAX_EDGES = 200_000
# A hint of so many tasks wakes as many claims, as many as one claim may take.
ROOM_HINTS = 100


@dataclass(frozen=True, slots=True)
class TaskChange:
    """One task that changed its state in this transaction. `task` is as it is now."""

    task: Task
    old_status: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """What surrounds a task: unmet dependencies, the database's clock, the project's limit (-1: none)."""

    waits_for: list[Task]
    now: datetime
    project_active: int
    project_cap: int
    organization_active: int


class TaskFollower(Protocol):
    """A room above that goes on with the work when tasks change."""

    async def tasks_changed(self, tx: Tx, changes: Sequence[TaskChange]) -> None:
        """These tasks started, ended or were queued again, in this transaction."""


class TicketHolds(Protocol):
    """The room above that knows what tickets lay on their tasks."""

    async def laid_on_tasks(self, tx: Tx, ticket_ids: Sequence[str]) -> Mapping[str, int]:
        """The holds of each of these tickets; they do not change until this transaction has ended. 404 without one."""


class QueueService:
    """Tasks and their dependencies. Joins the transactions of its callers; the claim side is in `ClaimService`."""

    def __init__(self) -> None:
        self._followers: list[TaskFollower] = []
        self._tickets: TicketHolds | None = None

    def follow(self, follower: TaskFollower) -> None:
        """Have `follower` told of every change of state."""
        self._followers.append(follower)

    def held_by(self, tickets: TicketHolds) -> None:
        """Have `tickets` say what tickets lay on their tasks."""
        self._tickets = tickets

    async def laid_on_tasks(self, tx: Tx, ticket_ids: Sequence[str]) -> Mapping[str, int]:
        """The holds that these tickets lay on their tasks, which stay so until this transaction has ended."""
        return {} if self._tickets is None else await self._tickets.laid_on_tasks(tx, ticket_ids)

    async def tell(self, tx: Tx, changes: Sequence[TaskChange]) -> None:
        """Tell every follower, after the rows were flushed."""
        if not changes:
            return
        await tx.session.flush()
        for follower in self._followers:
            await follower.tasks_changed(tx, changes)

    async def lock_ticket(self, tx: Tx, ticket_id: str) -> None:
        """Lock the live tasks of a ticket, before the ticket itself is locked to change what holds them."""
        for execution_id in await locks_store.executions_of_ticket(tx, ticket_id):
            await locks_store.lock_execution(tx, execution_id)
        await locks_store.lock_execution(tx, ticket_id)
        await locks_store.lock_live_of_ticket(tx, ticket_id)

    # Making

    async def create(
        self,
        tx: Tx,
        drafts: Sequence[TaskDraft],
        *,
        announce: bool = True,
        now: datetime | None = None,
        settled: bool = False,
    ) -> list[Task]:
        """Make tasks. Their dependencies are other drafts or existing tasks of the same organization.

        Everybody who makes tasks comes by here, where project and ticket are kept from changing until the commit: who
        sets or clears a hold does not see rows of other transactions.

        `settled`: this transaction keeps the projects so already, and has made the tickets, which hold nothing.
        `now`: what the database's clock said in this transaction; without it the clock is asked.

        Raises 404 for a dependency that does not exist there. The drafts among themselves must be acyclic.
        """
        if not drafts:
            return []
        wanted = {draft.project_id for draft in drafts}
        projects = await (store.projects_of(tx, wanted) if settled else store.share_projects(tx, wanted))
        known = await self._known_dependencies(tx, drafts)
        tickets = sorted({draft.ticket_id for draft in drafts})
        laid = {} if settled else await self.laid_on_tasks(tx, tickets)
        apart = sorted({draft.ticket_id for draft in drafts if draft.spec_id is None})
        targets = {} if settled else await store.targets_of(tx, apart)
        dependents: dict[str, int] = {}
        for draft in drafts:
            for before in draft.depends_on:
                dependents[before] = dependents.get(before, 0) + 1
        now = now or await store.now(tx)
        rows: list[dict[str, Any]] = []
        edges: list[dict[str, Any]] = []
        for place, draft in enumerate(drafts):
            unmet = 0
            holds = draft.holds | laid.get(draft.ticket_id, 0) & ~draft.exempt
            holds |= drafts_of.project_holds(projects[draft.project_id], draft.spec_id, draft.execution_config)
            for before in draft.depends_on:
                task = known.get(before)
                met = task is not None and rules.dependency_met(task.status, task.merge_state)
                if task is not None and rules.dependency_lost(task.status, task.merge_state):
                    holds |= Hold.DEPENDENCY_FAILED
                unmet += not met
                edges.append({"task_id": draft.id, "depends_on_id": before, "satisfied": met})
            # Rows of one batch keep their order in lists that are sorted by time.
            created_at = now + timedelta(microseconds=place)
            target = draft.target_branch or targets.get(draft.ticket_id) or rules.ticket_target(draft.ticket_id)
            waiting = dependents.get(draft.id, 0)
            rows.append(drafts_of.row_of(draft, target, created_at, now, int(holds), unmet, waiting))
        ordered = await store.add_all(tx, rows)
        await store.add_edges(tx, edges)
        for task in ordered:
            events.task_created(tx, task, task.description)
        if announce:
            events.tasks_ready(tx, (task for task in ordered if task.holds == 0 and task.unmet_dependencies == 0))
        return ordered

    async def _known_dependencies(self, tx: Tx, drafts: Sequence[TaskDraft]) -> dict[str, Task]:
        own = {draft.id for draft in drafts}
        wanted = {before for draft in drafts for before in draft.depends_on} - own
        known = {task.id: task for task in await locks_store.lock_many(tx, sorted(wanted))} if wanted else {}
        organizations = {draft.organization_id for draft in drafts}
        missing = sorted(
            before for before in wanted if before not in known or known[before].organization_id not in organizations
        )
        if missing:
            raise DEPENDENCY_NOT_FOUND(f"These dependencies do not exist: {', '.join(missing[:20])}.")
        return known

    async def find(self, tx: Tx, task_id: str) -> Task | None:
        """One task, for rooms that check access by it."""
        return await store.get(tx, task_id)

    async def clock(self, tx: Tx) -> datetime:
        """The database's clock."""
        return await store.now(tx)

    async def edit(self, tx: Tx, task_id: str, changes: Mapping[str, Any]) -> Task:
        """Change what is no state: None and what is the same already is left out."""
        found = await locks_store.lock(tx, task_id)
        if found is None:
            raise TASK_NOT_FOUND()
        task, now = found
        real = {name: value for name, value in changes.items() if value is not None and getattr(task, name) != value}
        if not real:
            return task
        for name, value in real.items():
            setattr(task, name, value)
        if "priority" in real:
            task.rescore_at = now
        if "timeout_seconds" in real and task.started_at is not None and task.status == rules.RUNNING:
            task.timeout_at = task.started_at + timedelta(seconds=real["timeout_seconds"])
        task.updated_at = now
        task.version += 1
        await tx.session.flush()
        events.task_updated(tx, task, real)
        return task

    # Holds

    async def project_changed(self, tx: Tx, project: Project, *, limit_changed: bool) -> None:
        """A project was archived, paused or made autonomous; its limit changed; its repository is ready or failed."""
        changed = await store.set_hold(
            tx, Hold.PROJECT_NOT_ACTIVE, project.status in ("archived", "paused", "completed"), "project", project.id
        )
        changed += await store.set_hold(
            tx, Hold.REPOSITORY_NOT_READY, project.repository_state not in ("none", "ready"), "project", project.id
        )
        if project.repository_state == "ready":
            changed += await store.end_start_pauses(tx, project.id)
        changed += await store.set_autonomy(tx, project.id, project.autonomous_execution_enabled)
        await self.announce(tx, changed)
        if limit_changed:
            await self.room_changed(tx, project.organization_id, project.id)

    async def hold_ticket(self, tx: Tx, ticket_id: str, hold: Hold, on: bool) -> None:
        """Set or clear one hold on the live tasks of a ticket."""
        await self.announce(tx, await store.set_hold(tx, hold, on, "ticket", ticket_id))

    async def hold_execution(self, tx: Tx, execution_id: str, hold: Hold, on: bool) -> None:
        """Set or clear one hold on the live tasks of an execution."""
        await locks_store.lock_execution(tx, execution_id)
        await self.announce(tx, await store.set_hold(tx, hold, on, "execution", execution_id))

    async def readiness(self, tx: Tx, task: Task, default_cap: int) -> Readiness:
        """Everything a claim of this task would look at, besides the task's own columns."""
        project = (await store.projects_of(tx, [task.project_id]))[task.project_id]
        cap = default_cap if project.max_concurrent_tasks is None else project.max_concurrent_tasks
        organization, own = await store.active_counts(tx, task.organization_id, task.project_id)
        edges = await store.dependencies_of(tx, [task.id])
        waits_for = await store.get_many(tx, [edge[1] for edge in edges if not edge[2]])
        return Readiness(waits_for, await store.now(tx), own, cap, organization)

    async def announce(self, tx: Tx, ids: Iterable[str]) -> None:
        """Tell waiting claims of those of these tasks that may be claimed now."""
        wanted = list(dict.fromkeys(ids))
        if wanted:
            events.tasks_ready(tx, await store.claimable(tx, wanted))

    async def room_changed(self, tx: Tx, organization_id: str, project_id: str | None = None) -> None:
        """A limit is another one now: let waiting claims look again, where there is something to claim."""
        events.tasks_ready(tx, await store.ready(tx, organization_id, project_id, ROOM_HINTS))

    # Release

    async def release_dependents(self, tx: Tx, ids: Sequence[str]) -> None:
        """These tasks are completed and merged: let go what waits for them."""
        await self.announce(tx, await store.satisfy(tx, ids))

    async def hold_dependents(self, tx: Tx, ids: Sequence[str]) -> None:
        """These tasks are lost: what depends on them may not run, and says so."""
        for task in await store.get_many(tx, await store.hold_dependents(tx, ids, Hold.DEPENDENCY_FAILED)):
            events.task_updated(tx, task, {"held_by": "dependency_failed"})

    # Ends from the outside

    async def cancel(self, tx: Tx, tasks: Sequence[Task], now: datetime, reason: str) -> list[TaskChange]:
        """Cancel locked tasks that have not ended; agents end the sandboxes of those that run, by the event."""
        changes = []
        for task in tasks:
            if task.status in rules.ENDED:
                continue
            old_status = task.status
            end(task, rules.CANCELLED, now)
            task.end_reason = reason
            task.error_message = f"Cancelled: {reason}"
            metrics.task(tx, "cancelled")
            events.task_cancelled(tx, task, old_status, task.sandbox_id or "", task.attempt, reason)
            changes.append(TaskChange(task, old_status))
        if changes:
            await tx.session.flush()
            await self.hold_dependents(tx, [change.task.id for change in changes])
        return changes

    async def cancel_of_ticket(self, tx: Tx, ticket_id: str, reason: str) -> None:
        """Cancel what is left to do of a ticket."""
        await self.lock_ticket(tx, ticket_id)
        live = await locks_store.lock_live_of_ticket(tx, ticket_id)
        await self.tell(tx, await self.cancel(tx, live, await store.now(tx), reason))

    async def cancel_one(self, tx: Tx, task_id: str, reason: str) -> Task:
        """Cancel one task. Raises 404 when it does not exist or has ended."""
        found = await locks_store.lock(tx, task_id)
        if found is None:
            raise TASK_NOT_FOUND()
        task, now = found
        if task.status in rules.ENDED:
            raise TASK_NOT_CANCELLABLE()
        await self.tell(tx, await self.cancel(tx, [task], now, reason))
        return task

    async def fail_one(self, tx: Tx, task_id: str, reason: str, failed_by: str) -> tuple[Task, str]:
        """Fail one task for good; returns it and its state before. Raises 400 when it has ended."""
        found = await locks_store.lock(tx, task_id)
        if found is None:
            raise TASK_NOT_FOUND()
        task, now = found
        if task.status in rules.ENDED:
            raise TASK_ENDED()
        old_status = task.status
        await self.fail(tx, task, now, reason, failed_by)
        await self.tell(tx, [TaskChange(task, old_status)])
        return task, old_status

    async def fail(self, tx: Tx, task: Task, now: datetime, error: str, failed_by: str) -> None:
        """Fail a locked task for good and hold what depends on it. The caller tells the followers."""
        old_status = task.status
        end(task, rules.FAILED, now)
        task.error_message = error
        metrics.task(tx, "failed")
        events.task_failed(tx, task, old_status, task.sandbox_id or "", task.attempt, error, failed_by)
        await tx.session.flush()
        await self.hold_dependents(tx, [task.id])

    async def retry(self, tx: Tx, task_id: str) -> Task:
        """Queue a failed or cancelled task again with all its retries. Raises 409 when that cannot be.

        Of a completed one that no execution begins again, the branch that could not be merged is tried again.
        """
        found = await locks_store.lock(tx, task_id)
        if found is None:
            raise TASK_NOT_FOUND()
        task, now = found
        if rules.merge_retryable(task.status, task.merge_state, task.execution_id, task.resolution_task_id):
            await self._merge_again(tx, task, now)
            return task
        if task.status not in (rules.FAILED, rules.CANCELLED):
            raise TASK_NOT_RETRYABLE(status=task.status)
        if task.execution_id is not None and task.holds & Hold.SPEC_NOT_EXECUTING:
            raise EXECUTION_ENDED()
        old_status = task.status
        reset(task, now)
        # What is above may have been lost while this task had ended.
        await self._weigh(tx, task)
        freed = await store.free_dependents(tx, [task.id], Hold.DEPENDENCY_FAILED)
        task = (await locks_store.lock_many(tx, [task.id]))[0]
        events.task_requeued(tx, task, old_status, "", "", task.attempt, "retried")
        await self.announce(tx, [task.id, *freed])
        await self.tell(tx, [TaskChange(task, old_status)])
        return task

    async def _merge_again(self, tx: Tx, task: Task, now: datetime) -> None:
        task.merge_state, task.merge_id, task.merge_tries = rules.MERGE_PENDING, None, 0
        task.error_message = None
        task.updated_at = now
        task.version += 1
        await tx.session.flush()
        events.task_merge_changed(tx, task, rules.MERGE_PENDING, None, None)
        await store.free_dependents(tx, [task.id], Hold.DEPENDENCY_FAILED)
        await self.tell(tx, [TaskChange(task, task.status)])

    # Dependencies

    async def cycle_with(self, tx: Tx, task_id: str, depends_on: Sequence[str]) -> list[str] | None:
        """The cycle that these further dependencies would close, None when there is none."""
        if task_id in depends_on:
            return [task_id]
        edges = await store.upstream_edges(tx, list(depends_on), MAX_EDGES)
        edges += [(before, task_id) for before in depends_on]
        nodes = list(dict.fromkeys(node for edge in edges for node in edge))
        return dag.find_cycle(nodes, edges)

    async def set_dependencies(
        self, tx: Tx, task_id: str, add: Sequence[str], *, replace: bool = False, remove: Sequence[str] = ()
    ) -> tuple[Task, list[str]]:
        """Add, replace or remove dependencies of a pending task; returns it and all it depends on now.

        Raises 404 for unknown tasks, 400 for a cycle, 409 when the task has begun.
        """
        unlocked = await store.get(tx, task_id)
        if unlocked is None:
            raise TASK_NOT_FOUND()
        await locks_store.lock_dependencies(tx, unlocked.organization_id)
        found = await locks_store.lock(tx, task_id)
        if found is None:
            raise TASK_NOT_FOUND()
        task, _ = found
        if task.status not in (rules.PENDING, rules.NEEDS_REVISION):
            raise DEPENDENCIES_FIXED(status=task.status)
        before = {edge[1]: edge[2] for edge in await store.dependencies_of(tx, [task_id])}
        wanted = list(dict.fromkeys(add))
        added = [one for one in wanted if one not in before]
        removed = [one for one in before if one in remove or (replace and one not in wanted)]
        known = {one.id: one for one in await locks_store.lock_many(tx, sorted(added))} if added else {}
        missing = [
            one for one in added
            if one != task_id and (one not in known or known[one].organization_id != task.organization_id)
        ]  # fmt: skip
        if missing:
            raise DEPENDENCY_NOT_FOUND(f"These dependencies do not exist: {', '.join(missing[:20])}.")
        cycle = await self.cycle_with(tx, task_id, added)
        if cycle is not None:
            raise DEPENDENCY_CYCLE(f"The dependencies would form a cycle: {' → '.join([*cycle, cycle[0]])}.")
        await store.delete_edges(tx, task_id, removed)
        met = {one: rules.dependency_met(known[one].status, known[one].merge_state) for one in added}
        await store.add_edges(tx, [{"task_id": task_id, "depends_on_id": one, "satisfied": met[one]} for one in added])
        now_on = {one: state for one, state in before.items() if one not in removed} | met
        await self.recount(tx, task, now_on)
        if added or removed:
            task.version += 1
            events.task_dependencies_changed(tx, task, list(now_on), added, removed)
            await tx.session.flush()
            await self.announce(tx, [task_id])
        return task, list(now_on)

    async def recount(self, tx: Tx, task: Task, depends_on: Mapping[str, bool]) -> None:
        """Have a locked task depend on these, each met or not, and on nothing else."""
        task.unmet_dependencies = sum(1 for met in depends_on.values() if not met)
        was_held = bool(task.holds & Hold.DEPENDENCY_FAILED)
        is_held = await self._weigh(tx, task)
        # What is below this task stands and falls with it.
        if is_held and not was_held:
            await self.hold_dependents(tx, [task.id])
        elif was_held and not is_held:
            await store.free_dependents(tx, [task.id], Hold.DEPENDENCY_FAILED)

    async def _weigh(self, tx: Tx, task: Task) -> bool:
        """Hold a locked task exactly if something above it is lost; returns whether."""
        await tx.session.flush()
        held = bool(await store.lost_above(tx, [task.id]))
        task.holds = task.holds | Hold.DEPENDENCY_FAILED if held else task.holds & ~Hold.DEPENDENCY_FAILED
        await tx.session.flush()
        return held


def end(task: Task, status: str, now: datetime) -> None:
    """Set a final state on a locked row; what ran stays visible, the lease is gone."""
    task.status = status
    task.completed_at = now
    task.updated_at = now
    task.lease_expires_at = None
    task.timeout_at = None
    task.not_before = None
    task.version += 1


def requeue(task: Task, now: datetime) -> None:
    """Make a leased task pending; the attempt number stays, the next claim counts it up.

    The error of the last attempt that failed stays, too: the next one is told of it.
    """
    task.status = rules.PENDING
    task.sandbox_id = None
    task.assigned_agent_id = None
    task.lease_expires_at = None
    task.timeout_at = None
    task.claimed_at = None
    task.started_at = None
    task.updated_at = now
    task.version += 1


def reset(task: Task, now: datetime) -> None:
    """Make an ended task pending again, with all its retries; the attempt number goes on counting."""
    task.status = rules.PENDING
    task.retry_count = 0
    task.leases_lost = 0
    task.start_failures, task.start_error = 0, None
    task.releases = 0
    task.error_message = None
    task.end_reason = None
    task.not_before = None
    task.sandbox_id = None
    task.assigned_agent_id = None
    task.started_at = None
    task.completed_at = None
    task.updated_at = now
    task.version += 1
    scored = rules.Scored(task.priority, task.created_at, 0, task.max_retries, 0, task.deadline_at)
    task.score = rules.score(scored, now)
    task.rescore_at = now
