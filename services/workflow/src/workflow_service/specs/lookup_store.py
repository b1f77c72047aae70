"""SQL of lookups across rooms, for other services."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select

from servicekit.db import Tx
from workflow_service.coordination.tables import Execution
from workflow_service.engine.tables import Ticket, TicketCount, TicketCountDelta
from workflow_service.projects.tables import Project
from workflow_service.queue.tables import Task
from workflow_service.specs.tables import Spec

_KINDS: dict[str, Any] = {"project": Project, "spec": Spec, "ticket": Ticket, "task": Task, "execution": Execution}


async def by_ids(tx: Tx, kind: str, ids: Sequence[str]) -> list[Any]:
    """Those rows of a kind that exist, by id."""
    table = _KINDS[kind]
    return list((await tx.session.scalars(select(table).where(table.id.in_(ids)).order_by(table.id))).all())


async def after(tx: Tx, kind: str, last: str, limit: int) -> list[Any]:
    """Rows of a kind by id, after `last`."""
    table = _KINDS[kind]
    return list((await tx.session.scalars(select(table).where(table.id > last).order_by(table.id).limit(limit))).all())


async def places(tx: Tx, kind: str, ids: Sequence[str]) -> list[tuple[str, str, str]]:
    """(id, organization, project) of those that exist; nothing for a kind that is not ours."""
    table = _KINDS.get(kind)
    if table is None:
        return []
    project = table.id if table is Project else table.project_id
    rows = await tx.session.execute(select(table.id, table.organization_id, project).where(table.id.in_(ids)))
    return [(row[0], row[1], row[2]) for row in rows]


async def tasks_by_status(tx: Tx, organization_ids: Sequence[str]) -> list[tuple[str, str, int]]:
    """(organization, status, tasks)."""
    rows = await tx.session.execute(
        select(Task.organization_id, Task.status, func.count())
        .where(Task.organization_id.in_(organization_ids))
        .group_by(Task.organization_id, Task.status)
        .order_by(Task.organization_id, Task.status)
    )
    return [(row[0], row[1], row[2]) for row in rows]


async def tickets_by_status(tx: Tx, organization_ids: Sequence[str]) -> list[tuple[str, str, int]]:
    """(organization, status, tickets), from the counts."""
    found: dict[tuple[str, str], int] = {}
    for table in (TicketCount, TicketCountDelta):
        rows = await tx.session.execute(
            select(table.organization_id, table.status, func.sum(table.tickets))
            .where(table.organization_id.in_(organization_ids))
            .group_by(table.organization_id, table.status)
        )
        for row in rows:
            found[row[0], row[1]] = found.get((row[0], row[1]), 0) + int(row[2])
    return [(*key, count) for key, count in sorted(found.items()) if count]


async def specs_by_status(tx: Tx, organization_ids: Sequence[str]) -> list[tuple[str, str, int]]:
    """(organization, status, specs), archived ones left out."""
    rows = await tx.session.execute(
        select(Spec.organization_id, Spec.status, func.count())
        .where(Spec.organization_id.in_(organization_ids), Spec.archived.is_(False))
        .group_by(Spec.organization_id, Spec.status)
        .order_by(Spec.organization_id, Spec.status)
    )
    return [(row[0], row[1], row[2]) for row in rows]
