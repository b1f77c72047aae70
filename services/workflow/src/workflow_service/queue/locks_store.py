"""SQL that locks tasks: what works together by an advisory lock, then rows in the order of their ids."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, case, func, select, text

from servicekit.db import Tx
from workflow_service.locks.rules import LockClass, advisory_lock
from workflow_service.queue.tables import Task

_LOCK_EXECUTION = text(f"SELECT {advisory_lock(LockClass.EXECUTION, ':id')}")
_LOCK_DEPENDENCIES = text(f"SELECT {advisory_lock(LockClass.TASK_DEPENDENCIES, ':id')}")


async def lock_execution(tx: Tx, execution_id: str | None) -> None:
    """Lets one transaction at a time change several tasks of an execution, so that they cannot deadlock.

    Tasks of no spec are merged with those of their ticket, whose id takes the place of the execution's.
    """
    if execution_id is not None:
        await tx.session.execute(_LOCK_EXECUTION, {"id": execution_id})


async def lock_dependencies(tx: Tx, organization_id: str) -> None:
    """Lets one transaction at a time add dependencies between tasks of an organization: two could close a cycle."""
    await tx.session.execute(_LOCK_DEPENDENCIES, {"id": organization_id})


async def together_with(tx: Tx, task_id: str) -> str | None:
    """What the task is changed together with, without a lock: its execution, or its ticket where it has no spec."""
    ticket = case((Task.spec_id.is_(None), Task.ticket_id))
    return await tx.session.scalar(select(func.coalesce(Task.execution_id, ticket)).where(Task.id == task_id))


async def lock(tx: Tx, task_id: str) -> tuple[Task, datetime] | None:
    """One task, what it is changed together with and its row locked in this order, and the database's clock."""
    await lock_execution(tx, await together_with(tx, task_id))
    row = (
        await tx.session.execute(
            select(Task, func.clock_timestamp())
            .where(Task.id == task_id)
            .with_for_update()
            .execution_options(populate_existing=True)
        )
    ).one_or_none()
    return None if row is None else (row[0], row[1])


async def lock_many(tx: Tx, ids: Sequence[str]) -> list[Task]:
    """Those of these tasks that exist, locked in the order of their ids."""
    return await _locked(tx, Task.id.in_(ids))


async def lock_of_execution(tx: Tx, execution_id: str, statuses: Sequence[str]) -> list[Task]:
    """Tasks of an execution in these states, locked in the order of their ids."""
    await lock_execution(tx, execution_id)
    return await _locked(tx, Task.execution_id == execution_id, Task.status.in_(statuses))


async def lock_of_spec(tx: Tx, spec_id: str) -> list[Task]:
    """All tasks of a spec, locked in the order of their ids."""
    return await _locked(tx, Task.spec_id == spec_id)


async def lock_live_of_ticket(tx: Tx, ticket_id: str) -> list[Task]:
    """The tasks of a ticket that have not ended, locked in the order of their ids."""
    return await _locked(tx, Task.ticket_id == ticket_id, Task.status.notin_(("completed", "failed", "cancelled")))


async def lock_of_ticket(tx: Tx, ticket_id: str) -> list[Task]:
    """All tasks of a ticket, locked in the order of their ids."""
    return await _locked(tx, Task.ticket_id == ticket_id)


async def executions_of_ticket(tx: Tx, ticket_id: str) -> list[str]:
    """The executions of a ticket's live tasks, in a stable order."""
    rows = await tx.session.scalars(
        select(Task.execution_id)
        .where(
            Task.ticket_id == ticket_id,
            Task.execution_id.is_not(None),
            Task.status.notin_(("completed", "failed", "cancelled")),
        )
        .distinct()
        .order_by(Task.execution_id)
    )
    return [row for row in rows if row is not None]


async def _locked(tx: Tx, *conditions: ColumnElement[bool]) -> list[Task]:
    rows = await tx.session.scalars(
        select(Task).where(*conditions).order_by(Task.id).with_for_update().execution_options(populate_existing=True)
    )
    return list(rows.all())
