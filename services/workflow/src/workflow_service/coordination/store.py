"""SQL of executions and merges."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as upsert

from servicekit.db import Tx
from workflow_service.coordination.rules import Linked
from workflow_service.coordination.tables import Execution, Merge
from workflow_service.queue.tables import Task, TaskDependency

_COUNT_COMMITS = """
INSERT INTO task_commits AS c (task_id, commits, lines_added, lines_removed)
SELECT t.id, g.commits, g.added, g.removed
FROM unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[]) AS g(id, commits, added, removed)
JOIN tasks t ON t.id = g.id ORDER BY t.id
ON CONFLICT (task_id) DO UPDATE SET commits = c.commits + excluded.commits,
    lines_added = c.lines_added + excluded.lines_added, lines_removed = c.lines_removed + excluded.lines_removed
"""


async def now(tx: Tx) -> datetime:
    """The database's clock."""
    value: datetime = (await tx.session.scalars(select(func.clock_timestamp()))).one()
    return value


async def add_execution(tx: Tx, execution: Execution) -> bool:
    """Insert; False when the spec has an open execution."""
    columns = ("id", "organization_id", "project_id", "spec_id", "reservation_id", "budget_micro_usd")
    values = {name: getattr(execution, name) for name in (*columns, "target_branch", "started_by")}
    inserted = await tx.session.scalar(
        upsert(Execution).values(values).on_conflict_do_nothing().returning(Execution.id)
    )
    return inserted is not None


async def get(tx: Tx, execution_id: str, *, lock: bool = False) -> Execution | None:
    """One execution, locked on request."""
    statement = select(Execution).where(Execution.id == execution_id)
    if lock:
        statement = statement.with_for_update().execution_options(populate_existing=True)
    return (await tx.session.scalars(statement)).one_or_none()


async def open_of_spec(tx: Tx, spec_id: str) -> Execution | None:
    """The open execution of a spec."""
    return (
        await tx.session.scalars(
            select(Execution).where(Execution.spec_id == spec_id, Execution.state.in_(("running", "paused")))
        )
    ).one_or_none()


async def open_executions(tx: Tx, after: str, limit: int) -> list[str]:
    """Open executions by id."""
    rows = await tx.session.scalars(
        select(Execution.id)
        .where(Execution.state.in_(("running", "paused")), Execution.id > after)
        .order_by(Execution.id)
        .limit(limit)
    )
    return list(rows.all())


async def merges_to_do(tx: Tx, project_id: str, target_branch: str) -> list[Task]:
    """Completed tasks whose branches wait for a merge into this one that has not been asked for, oldest first.

    Locked. What another transaction changes just now is left out: that one queues it.
    """
    rows = await tx.session.scalars(
        select(Task)
        .where(
            Task.project_id == project_id,
            Task.target_branch == target_branch,
            Task.merge_state == "pending",
            Task.merge_id.is_(None),
            Task.status == "completed",
        )
        .order_by(Task.completed_at, Task.id)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    return list(rows.all())


async def targets_with_merges_to_do(tx: Tx, limit: int) -> list[tuple[str, str, str]]:
    """(project, target branch, what its tasks are locked by) where a branch waits for a merge and none is open."""
    rows = await tx.session.execute(
        select(Task.project_id, Task.target_branch, func.max(func.coalesce(Task.execution_id, Task.ticket_id)))
        .where(
            Task.target_branch.is_not(None),
            Task.merge_state == "pending",
            Task.merge_id.is_(None),
            Task.status == "completed",
            ~select(Merge.id)
            .where(
                Merge.project_id == Task.project_id,
                Merge.target_branch == Task.target_branch,
                Merge.state.in_(("intent", "started")),
            )
            .correlate(Task)
            .exists(),
        )
        .group_by(Task.project_id, Task.target_branch)
        .limit(limit)
    )
    return [(row[0], str(row[1]), row[2]) for row in rows]


async def edges_among(tx: Tx, ids: Sequence[str]) -> list[tuple[str, str]]:
    """(before, after) among these tasks."""
    rows = await tx.session.execute(
        select(TaskDependency.depends_on_id, TaskDependency.task_id).where(
            TaskDependency.task_id.in_(ids), TaskDependency.depends_on_id.in_(ids)
        )
    )
    return [(row[0], row[1]) for row in rows]


async def add_merge(tx: Tx, merge: Merge) -> bool:
    """Insert an intent; False when a merge into the branch is open."""
    values = {
        "id": merge.id,
        "organization_id": merge.organization_id,
        "project_id": merge.project_id,
        "spec_id": merge.spec_id,
        "target_branch": merge.target_branch,
        "items": merge.items,
    }
    inserted = await tx.session.scalar(upsert(Merge).values(values).on_conflict_do_nothing().returning(Merge.id))
    return inserted is not None


async def get_merge(tx: Tx, merge_id: str, *, lock: bool = False) -> Merge | None:
    """One merge, locked on request."""
    statement = select(Merge).where(Merge.id == merge_id)
    if lock:
        statement = statement.with_for_update().execution_options(populate_existing=True)
    return (await tx.session.scalars(statement)).one_or_none()


async def due_merges(tx: Tx, limit: int) -> list[Merge]:
    """Merges to ask for, and those without news for long."""
    rows = await tx.session.scalars(
        select(Merge)
        .where(Merge.state.in_(("intent", "started")), Merge.due_at <= func.clock_timestamp())
        .order_by(Merge.due_at)
        .limit(limit)
    )
    return list(rows.all())


async def count_commits(tx: Tx, linked: Sequence[Linked]) -> None:
    """Add to what is counted of each task, once each; tasks that are gone are left out."""
    connection = await tx.connection()
    await connection.execute(
        _COUNT_COMMITS,
        [one.task_id for one in linked],
        [one.commits for one in linked],
        [one.lines_added for one in linked],
        [one.lines_removed for one in linked],
    )
