"""SQL of ticket lists. All of them are bounded and read from an index in their order."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, func, or_, select, true, values
from sqlalchemy import Text as SqlText
from sqlalchemy import column as sql_column

from servicekit.db import Tx
from workflow_service.engine.tables import Ticket, TicketCount, TicketCountDelta

SEARCH_COUNT_LIMIT = 10_000


def _where(
    status: str | None, priority: str | None, phase_id: str | None, project_id: str | None, search: str | None
) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = [Ticket.hidden.is_(False)]
    if status is not None:
        where.append(Ticket.status == status)
    if priority is not None:
        where.append(Ticket.priority == priority)
    if phase_id is not None:
        where.append(Ticket.phase_id == phase_id)
    if project_id is not None:
        where.append(Ticket.project_id == project_id)
    if search:
        where.append(
            or_(Ticket.title.icontains(search, autoescape=True), Ticket.description.icontains(search, autoescape=True))
        )
    return where


async def page(
    tx: Tx,
    organization_ids: Sequence[str],
    *,
    status: str | None,
    priority: str | None,
    phase_id: str | None,
    project_id: str | None,
    search: str | None,
    limit: int,
    offset: int,
) -> list[Ticket]:
    """Newest first, those of archived specs left out."""
    if not organization_ids:
        return []
    where = _where(status, priority, phase_id, project_id, search)
    # Each organization gives its own newest rows from the index; only those few are sorted together.
    organizations = values(sql_column("id", SqlText), name="organizations").data([(one,) for one in organization_ids])
    newest = (
        select(Ticket.id, Ticket.created_at)
        .where(Ticket.organization_id == organizations.c.id, *where)
        .order_by(Ticket.created_at.desc(), Ticket.id.desc())
        .limit(limit + offset)
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
    rows = await tx.session.scalars(
        select(Ticket).join(chosen, chosen.c.id == Ticket.id).order_by(Ticket.created_at.desc(), Ticket.id.desc())
    )
    return list(rows.all())


async def count(
    tx: Tx,
    organization_ids: Sequence[str],
    *,
    status: str | None,
    priority: str | None,
    phase_id: str | None,
    project_id: str | None,
) -> int:
    """Tickets that match, from the counts: its cost does not grow with their number."""
    total = 0
    for table in (TicketCount, TicketCountDelta):
        statement = select(func.coalesce(func.sum(table.tickets), 0)).where(table.organization_id.in_(organization_ids))
        pairs = ((table.status, status), (table.priority, priority), (table.phase_id, phase_id))
        for column, value in (*pairs, (table.project_id, project_id)):
            if value is not None:
                statement = statement.where(column == value)
        total += int(await tx.session.scalar(statement) or 0)
    return total


async def count_search(
    tx: Tx,
    organization_ids: Sequence[str],
    *,
    status: str | None,
    priority: str | None,
    phase_id: str | None,
    project_id: str | None,
    search: str,
) -> int:
    """Tickets whose text matches, at most 10,000."""
    found = (
        select(Ticket.id)
        .where(Ticket.organization_id.in_(organization_ids), *_where(status, priority, phase_id, project_id, search))
        .limit(SEARCH_COUNT_LIMIT)
        .subquery()
    )
    return await tx.session.scalar(select(func.count()).select_from(found)) or 0


async def same_text(
    tx: Tx, organization_ids: Sequence[str], project_id: str | None, content_hash: str, limit: int
) -> list[Ticket]:
    """Tickets that are not done and say the same, the oldest first."""
    where = [
        Ticket.organization_id.in_(organization_ids),
        Ticket.content_hash == content_hash,
        Ticket.status != "done",
        Ticket.hidden.is_(False),
    ]
    if project_id is not None:
        where.append(Ticket.project_id == project_id)
    rows = await tx.session.scalars(select(Ticket).where(*where).order_by(Ticket.created_at, Ticket.id).limit(limit))
    return list(rows.all())


async def pending_reviews(tx: Tx, organization_ids: Sequence[str]) -> int:
    """Tickets that wait for an approval."""
    statement = select(func.count()).where(
        Ticket.organization_id.in_(organization_ids), Ticket.approval_status == "pending_review"
    )
    return await tx.session.scalar(statement) or 0


async def overdue_reviews(tx: Tx, limit: int) -> list[str]:
    """Tickets whose approval came too late."""
    rows = await tx.session.scalars(
        select(Ticket.id)
        .where(Ticket.approval_status == "pending_review", Ticket.approval_deadline_at < func.clock_timestamp())
        .order_by(Ticket.approval_deadline_at)
        .limit(limit)
    )
    return list(rows.all())
