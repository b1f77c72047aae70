"""SQL of ticket lists. All of them are bounded and read from an index in their order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Integer,
    Row,
    Select,
    any_,
    bindparam,
    func,
    not_,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy import Text as SqlText
from sqlalchemy import column as sql_column

from servicekit.auth.tables import ReplicaMembership
from servicekit.db import Tx
from workflow_service.engine.tables import Ticket, TicketCount, TicketCountDelta

SEARCH_COUNT_LIMIT = 10_000
SHOWN = (
    *("id", "title", "description", "phase_id", "status", "priority", "project_id", "spec_id", "approval_status"),
    *("is_blocked", "blocked_reason", "context", "version", "created_at", "updated_at"),
)
_TICKETS = Ticket.__table__


def _given(
    status: str | None, priority: str | None, phase_id: str | None, project_id: str | None, search: str | None
) -> dict[str, str]:
    """The filters that are set, as parameters of a statement."""
    text = None if not search else search.replace("/", "//").replace("%", "/%").replace("_", "/_")
    filters = {"status": status, "priority": priority, "phase_id": phase_id, "project_id": project_id, "search": text}
    return {name: value for name, value in filters.items() if value is not None}


def _where(filters: Iterable[str]) -> list[ColumnElement[bool]]:
    """The conditions of these filters, whose values are parameters."""
    table = _TICKETS.c
    # As in the indexes' own condition: PostgreSQL does not see that `IS FALSE` implies it, and reads the whole table.
    where: list[ColumnElement[bool]] = [not_(table.hidden)]
    for name in filters:
        if name == "search":
            text = bindparam("search", type_=SqlText)
            where.append(or_(*(table[one].icontains(text, escape="/") for one in ("title", "description"))))
        else:
            where.append(table[name] == bindparam(name))
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
) -> Sequence[Row[Any]]:
    """Newest first, those of archived specs left out; rows with the columns of a ticket that are shown."""
    if not organization_ids:
        return []
    given = _given(status, priority, phase_id, project_id, search)
    values = {**given, "organizations": list(organization_ids), "newest": limit + offset, "most": limit, "skip": offset}
    rows: Sequence[Row[Any]] = (await tx.session.execute(_paging(tuple(given)), values)).all()
    return rows


@cache
def _paging(filters: tuple[str, ...]) -> Select[Any]:
    """A page by these filters; made once, because that costs more than running it."""
    table = _TICKETS.c
    # Each organization gives its own newest rows from the index; only those few are sorted together.
    # An array is one parameter; VALUES would have the statement compiled anew for every request.
    ids = bindparam("organizations", type_=ARRAY(SqlText))
    organizations = func.unnest(ids).table_valued(sql_column("id", SqlText)).render_derived(name="organizations")
    newest = (
        select(table.id, table.created_at)
        .where(table.organization_id == organizations.c.id, *_where(filters))
        .order_by(table.created_at.desc(), table.id.desc())
        # A number in the text: for a parameter the planner reckons with a tenth of all rows and sorts them.
        .limit(bindparam("newest", type_=Integer, literal_execute=True))
        .lateral("newest")
    )
    chosen = (
        select(newest.c.id)
        .select_from(organizations)
        .join(newest, true())
        .order_by(newest.c.created_at.desc(), newest.c.id.desc())
        .limit(bindparam("most", type_=Integer))
        .offset(bindparam("skip", type_=Integer))
        .subquery()
    )
    # Rows of a table cost half of what objects do, which nobody is going to change here. The limit has each be fetched
    # by its key: how many there are is a parameter, for which the planner would rather read the whole table.
    full = select(*(table[name] for name in SHOWN)).where(table.id == chosen.c.id).limit(1).lateral("shown")
    return (
        select(*(full.c[name] for name in SHOWN))
        .select_from(chosen)
        .join(full, true())
        .order_by(full.c.created_at.desc(), full.c.id.desc())
    )


async def matching(
    tx: Tx,
    ticket_id: str,
    organization_ids: Sequence[str],
    *,
    status: str | None,
    priority: str | None,
    phase_id: str | None,
    project_id: str | None,
    search: str | None,
) -> list[Ticket]:
    """The one ticket, where it matches; else nothing."""
    given = _given(status, priority, phase_id, project_id, search)
    statement = select(Ticket).where(
        Ticket.id == ticket_id, Ticket.organization_id.in_(organization_ids), *_where(given)
    )
    return list((await tx.session.scalars(statement, given)).all())


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
    given = _given(status, priority, phase_id, project_id, None)
    values = {**given, "organizations": list(organization_ids)}
    return int(await tx.session.scalar(_counting(tuple(given)), values) or 0)


@cache
def _counting(filters: tuple[str, ...]) -> Select[Any]:
    """The sum over counts and deltas; made once, because that costs as much as running it."""
    parts = []
    for table in (TicketCount.__table__, TicketCountDelta.__table__):
        where = [table.c[name] == bindparam(name) for name in filters]
        organizations = any_(bindparam("organizations", type_=ARRAY(SqlText)))
        parts.append(select(table.c.tickets).where(table.c.organization_id == organizations, *where))
    both = union_all(*parts).subquery()
    return select(func.coalesce(func.sum(both.c.tickets), 0))


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
    given = _given(status, priority, phase_id, project_id, search)
    found = (
        select(Ticket.id)
        .where(Ticket.organization_id.in_(organization_ids), *_where(given))
        .limit(SEARCH_COUNT_LIMIT)
        .subquery()
    )
    return await tx.session.scalar(select(func.count()).select_from(found), given) or 0


async def same_text(
    tx: Tx, organization_ids: Sequence[str], project_id: str | None, content_hash: str, limit: int
) -> list[Ticket]:
    """Tickets that are not done and say the same, the oldest first."""
    values = {"organizations": list(organization_ids), "hash": content_hash, "most": limit}
    if project_id is not None:
        values["project"] = project_id
    found = list((await tx.session.scalars(_same_text(project_id is not None), values)).all())
    if not found:
        return []
    rows = await tx.session.scalars(select(Ticket).where(Ticket.id.in_(found)).order_by(Ticket.created_at, Ticket.id))
    return list(rows.all())


@cache
def _same_text(of_project: bool) -> Select[Any]:
    """The ids of tickets that say the same; made once, because every create asks."""
    table = Ticket.__table__.c
    organizations = any_(bindparam("organizations", type_=ARRAY(SqlText)))
    where = [table.organization_id == organizations, table.content_hash == bindparam("hash")]
    where += [table.status != "done", not_(table.hidden)]
    if of_project:
        where.append(table.project_id == bindparam("project"))
    return select(table.id).where(*where).order_by(table.created_at, table.id).limit(bindparam("most", type_=Integer))


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


async def has_other_approver(tx: Tx, organization_id: str, user_id: str) -> bool:
    """Whether the organization has an admin or owner besides this user."""
    found = await tx.session.scalar(
        select(ReplicaMembership.user_id)
        .where(
            ReplicaMembership.organization_id == organization_id,
            ReplicaMembership.user_id != user_id,
            ReplicaMembership.active,
            ReplicaMembership.role.in_(("admin", "owner")),
        )
        .limit(1)
    )
    return found is not None
