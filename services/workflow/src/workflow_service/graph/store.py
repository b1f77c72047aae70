"""SQL of dependency graphs. Bounded: the newest tasks of a project or ticket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, select

from servicekit.db import Tx
from workflow_service.engine.tables import Ticket, TicketDependency
from workflow_service.queue.tables import Task, TaskDependency

BLOCKED_LIMIT = 500
_COLUMNS = (
    Task.id,
    Task.title,
    Task.description,
    Task.status,
    Task.merge_state,
    Task.phase_id,
    Task.priority,
    Task.task_type,
    Task.unmet_dependencies,
    Task.assigned_agent_id,
    Task.ticket_id,
    Task.parent_task_id,
    Task.created_at,
    Task.started_at,
    Task.completed_at,
)


async def tasks(
    tx: Tx, *, project_id: str | None, ticket_id: str | None, include_resolved: bool, limit: int
) -> list[Any]:
    """The newest tasks of a project or ticket, in the order in which they were made."""
    where: list[ColumnElement[bool]] = [Task.hidden.is_(False)]
    if project_id is not None:
        where.append(Task.project_id == project_id)
    if ticket_id is not None:
        where.append(Task.ticket_id == ticket_id)
    if not include_resolved:
        where.append(Task.status != "completed")
    rows = await tx.session.execute(
        select(*_COLUMNS).where(*where).order_by(Task.created_at.desc(), Task.id.desc()).limit(limit)
    )
    return list(reversed(rows.all()))


async def task_edges(tx: Tx, ids: Sequence[str]) -> list[tuple[str, str]]:
    """(before, after) of all dependencies of these tasks."""
    connection = await tx.connection()
    rows = await connection.fetch(
        "SELECT depends_on_id, task_id FROM task_dependencies WHERE task_id = ANY($1) ORDER BY task_id, depends_on_id",
        list(ids),
    )
    return [(row["depends_on_id"], row["task_id"]) for row in rows]


async def tickets(tx: Tx, ids: Sequence[str]) -> list[Ticket]:
    """These tickets, oldest first."""
    rows = await tx.session.scalars(select(Ticket).where(Ticket.id.in_(ids)).order_by(Ticket.created_at, Ticket.id))
    return list(rows.all())


async def ticket_edges(tx: Tx, ids: Sequence[str]) -> list[tuple[str, str]]:
    """(blocker, blocked) among these tickets."""
    rows = await tx.session.execute(
        select(TicketDependency.blocked_by_id, TicketDependency.ticket_id)
        .where(TicketDependency.ticket_id.in_(ids), TicketDependency.blocked_by_id.in_(ids))
        .order_by(TicketDependency.ticket_id, TicketDependency.blocked_by_id)
    )
    return [(row[0], row[1]) for row in rows]


async def waiting_for(tx: Tx, task_id: str) -> list[Task]:
    """Tasks that depend on this one."""
    rows = await tx.session.scalars(
        select(Task)
        .join(TaskDependency, TaskDependency.task_id == Task.id)
        .where(TaskDependency.depends_on_id == task_id)
        .order_by(Task.created_at, Task.id)
        .limit(BLOCKED_LIMIT)
    )
    return list(rows.all())


async def count_waiting(tx: Tx, task_id: str) -> int:
    """How many tasks depend on this one."""
    statement = select(func.count()).where(TaskDependency.depends_on_id == task_id)
    return await tx.session.scalar(statement) or 0


async def waited_for(tx: Tx, task_id: str) -> list[tuple[Task, bool]]:
    """(task that comes first, whether it lets this one go)."""
    rows = await tx.session.execute(
        select(Task, TaskDependency.satisfied)
        .join(TaskDependency, TaskDependency.depends_on_id == Task.id)
        .where(TaskDependency.task_id == task_id)
        .order_by(Task.created_at, Task.id)
    )
    return [(row[0], row[1]) for row in rows]
