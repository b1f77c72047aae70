"""SQL of task lists. All of them are bounded and read from an index in their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Integer, bindparam, func, literal, select, true
from sqlalchemy import Text as SqlText
from sqlalchemy import column as sql_column
from sqlalchemy.orm import aliased

from servicekit.db import Tx
from workflow_service.projects.tables import Project
from workflow_service.queue.tables import Task, TaskDependency

BLOCKED_LIMIT = 500


async def page(
    tx: Tx,
    organization_ids: Sequence[str],
    *,
    status: str | None,
    phase_id: str | None,
    has_sandbox: bool | None,
    ticket_id: str | None,
    project_id: str | None,
    limit: int,
    offset: int,
) -> list[Task]:
    """Newest first, tasks of archived specs left out."""
    where: list[ColumnElement[bool]] = [Task.hidden.is_(False)]
    if status is not None:
        where.append(Task.status == status)
    if phase_id is not None:
        where.append(Task.phase_id == phase_id)
    if has_sandbox is not None:
        where.append(Task.sandbox_id.is_not(None) if has_sandbox else Task.sandbox_id.is_(None))
    if ticket_id is not None:
        where.append(Task.ticket_id == ticket_id)
    if project_id is not None:
        where.append(Task.project_id == project_id)
    if not organization_ids:
        return []
    # Each organization gives its own newest rows from the index; only those few are sorted together.
    # An array is one parameter; VALUES would have the statement compiled anew for every request.
    ids = literal(list(organization_ids), ARRAY(SqlText))
    organizations = func.unnest(ids).table_valued(sql_column("id", SqlText)).render_derived(name="organizations")
    newest = (
        select(Task.id, Task.created_at)
        .where(Task.organization_id == organizations.c.id, *where)
        .order_by(Task.created_at.desc(), Task.id.desc())
        # A number in the text: for a parameter the planner reckons with a tenth of all rows and sorts them.
        .limit(bindparam("newest", limit + offset, Integer, literal_execute=True))
        .lateral("newest")
    )
    chosen = (
        select(newest.c.id)
        .select_from(organizations)
        .join(newest, true())
        .order_by(newest.c.created_at.desc(), newest.c.id.desc())
        .limit(limit)
        .offset(offset)
        .subquery()
    )
    # The limit has each be fetched by its key: how many there are is a parameter, for which the planner would rather
    # read the whole table.
    full = aliased(Task, select(Task).where(Task.id == chosen.c.id).limit(1).lateral("shown"))
    rows = await tx.session.scalars(
        select(full).select_from(chosen).join(full, true()).order_by(full.created_at.desc(), full.id.desc())
    )
    return list(rows.all())


async def depends_on(tx: Tx, task_id: str) -> list[tuple[str, bool]]:
    """(depends on, satisfied) in a stable order."""
    rows = await tx.session.execute(
        select(TaskDependency.depends_on_id, TaskDependency.satisfied)
        .where(TaskDependency.task_id == task_id)
        .order_by(TaskDependency.depends_on_id)
    )
    return [(row[0], row[1]) for row in rows]


async def waiting_for(tx: Tx, task_id: str) -> list[Task]:
    """Tasks that depend on this one, the oldest first."""
    rows = await tx.session.scalars(
        select(Task)
        .join(TaskDependency, TaskDependency.task_id == Task.id)
        .where(TaskDependency.depends_on_id == task_id)
        .order_by(Task.created_at, Task.id)
        .limit(BLOCKED_LIMIT)
    )
    return list(rows.all())


async def at_work(
    tx: Tx, organization_ids: Sequence[str], *, agent_id: str | None, timed_out: bool, limit: int
) -> list[tuple[Task, Any]]:
    """(task, the database's clock) of tasks assigned or running, the longest first."""
    where: list[ColumnElement[bool]] = [
        Task.organization_id.in_(organization_ids),
        Task.status.in_(("assigned", "running")),
    ]
    if agent_id is not None:
        where.append(Task.assigned_agent_id == agent_id)
    if timed_out:
        where += [Task.status == "running", Task.timeout_at < func.clock_timestamp()]
    rows = await tx.session.execute(
        select(Task, func.clock_timestamp()).where(*where).order_by(Task.claimed_at, Task.id).limit(limit)
    )
    return [(row[0], row[1]) for row in rows]


async def repository_of(tx: Tx, project_id: str) -> tuple[str, str | None]:
    """(state, error) of a project's repository."""
    query = select(Project.repository_state, Project.repository_error).where(Project.id == project_id)
    row = (await tx.session.execute(query)).one()
    return row[0], row[1]
