"""SQL of the parts of a spec, one at a time."""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import ColumnElement, func, select

from servicekit.db import Tx
from workflow_service.engine.tables import Ticket
from workflow_service.specs.tables import Criterion, Requirement, SpecTask

Part = TypeVar("Part", Requirement, Criterion, SpecTask)


async def requirement(tx: Tx, spec_id: str, requirement_id: str) -> Requirement | None:
    """One requirement of this spec."""
    where = (Requirement.id == requirement_id, Requirement.spec_id == spec_id)
    return (await tx.session.scalars(select(Requirement).where(*where))).one_or_none()


async def criterion(tx: Tx, spec_id: str, requirement_id: str, criterion_id: str) -> Criterion | None:
    """One criterion of this requirement of this spec."""
    where = (
        Criterion.id == criterion_id,
        Criterion.requirement_id == requirement_id,
        Criterion.spec_id == spec_id,
    )
    return (await tx.session.scalars(select(Criterion).where(*where))).one_or_none()


async def spec_task(tx: Tx, spec_id: str, spec_task_id: str) -> SpecTask | None:
    """One task of this spec."""
    where = (SpecTask.id == spec_task_id, SpecTask.spec_id == spec_id)
    return (await tx.session.scalars(select(SpecTask).where(*where))).one_or_none()


async def next_position(tx: Tx, table: Any, *where: ColumnElement[bool]) -> int:
    """The position after the last of these rows."""
    statement = select(func.coalesce(func.max(table.position), -1) + 1).where(*where)
    return await tx.session.scalar(statement) or 0


async def add(tx: Tx, row: Part) -> Part:
    """Insert one part; its defaults are read back."""
    tx.session.add(row)
    await tx.session.flush()
    await tx.session.refresh(row)
    return row


async def delete(tx: Tx, row: Part) -> None:
    """Delete one part and what hangs on it."""
    await tx.session.delete(row)
    await tx.session.flush()


async def all_spec_tasks(tx: Tx, spec_id: str) -> list[SpecTask]:
    """All tasks of a spec in their order; a plan bounds how many."""
    rows = await tx.session.scalars(
        select(SpecTask).where(SpecTask.spec_id == spec_id).order_by(SpecTask.position, SpecTask.id)
    )
    return list(rows.all())


async def bridge_ticket(tx: Tx, spec_id: str, source: str) -> Ticket | None:
    """The ticket of a spec that holds tasks added by hand."""
    rows = await tx.session.scalars(
        select(Ticket)
        .where(Ticket.spec_id == spec_id, Ticket.context["source"].astext == source)
        .order_by(Ticket.created_at, Ticket.id)
        .limit(1)
    )
    return rows.one_or_none()


async def linked_tickets(tx: Tx, spec_id: str, limit: int) -> list[Ticket]:
    """Tickets of a spec, oldest first."""
    rows = await tx.session.scalars(
        select(Ticket).where(Ticket.spec_id == spec_id).order_by(Ticket.created_at, Ticket.id).limit(limit)
    )
    return list(rows.all())
