"""SQL of the board: the newest cards of each column, and counts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import ARRAY, Integer, Row, Select, any_, bindparam, func, not_, select, text, true, union_all
from sqlalchemy import Text as SqlText
from sqlalchemy import column as sql_column

from servicekit.db import Tx
from workflow_service.engine.tables import Ticket, TicketCount, TicketCountDelta
from workflow_service.locks.rules import LockClass, advisory_lock
from workflow_service.queue.tables import Task

SHOWN = ("id", "title", "phase_id", "priority", "status", "approval_status", "is_blocked", "project_id", "context")
_LOCK_COLUMN = text(f"SELECT {advisory_lock(LockClass.BOARD_COLUMN, ':key')}")
_TICKETS = Ticket.__table__


async def cards(tx: Tx, project_ids: Sequence[str], phases: Sequence[str], per_phase: int) -> Sequence[Row[Any]]:
    """The newest `per_phase` tickets of each phase of each project, newest first; rows with the columns of a card."""
    if not project_ids:
        return []
    pairs = [(project, phase) for project in project_ids for phase in phases]
    values = {"projects": [pair[0] for pair in pairs], "phases": [pair[1] for pair in pairs], "per_phase": per_phase}
    rows: Sequence[Row[Any]] = (await tx.session.execute(_cards(), values)).all()
    return rows


@cache
def _cards() -> Select[Any]:
    """The cards of parallel arrays of projects and phases; made once."""
    # Arrays are two parameters; VALUES would have the statement compiled anew for every request.
    columns = (bindparam(name, type_=ARRAY(SqlText)) for name in ("projects", "phases"))
    names = (sql_column("project_id", SqlText), sql_column("phase_id", SqlText))
    lanes = func.unnest(*columns).table_valued(*names).render_derived(name="lanes")
    table = _TICKETS.c
    newest = (
        select(*(table[name] for name in SHOWN), table.created_at)
        .where(table.project_id == lanes.c.project_id, table.phase_id == lanes.c.phase_id, not_(table.hidden))
        .order_by(table.created_at.desc(), table.id.desc())
        # A number in the text: for a parameter the planner reckons with a tenth of all rows and sorts them.
        .limit(bindparam("per_phase", type_=Integer, literal_execute=True))
        .lateral("newest")
    )
    return (
        select(*(newest.c[name] for name in SHOWN))
        .select_from(lanes)
        .join(newest, true())
        .order_by(newest.c.created_at.desc(), newest.c.id.desc())
    )


async def counts(tx: Tx, project_ids: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Tickets by phase and by status, from the counts: the cost does not grow with the number of tickets."""
    by_phase: dict[str, int] = {}
    by_status: dict[str, int] = {}
    for phase, status, tickets in await tx.session.execute(_counting(), {"projects": list(project_ids)}):
        by_phase[phase] = by_phase.get(phase, 0) + int(tickets)
        by_status[status] = by_status.get(status, 0) + int(tickets)
    return ({k: v for k, v in by_phase.items() if v}, {k: v for k, v in by_status.items() if v})


@cache
def _counting() -> Select[Any]:
    """The sums over counts and deltas; made once, because that costs as much as running it."""
    projects = any_(bindparam("projects", type_=ARRAY(SqlText)))
    both = union_all(
        *(
            select(table.c.phase_id, table.c.status, table.c.tickets).where(table.c.project_id == projects)
            for table in (TicketCount.__table__, TicketCountDelta.__table__)
        )
    ).subquery()
    return select(both.c.phase_id, both.c.status, func.sum(both.c.tickets)).group_by(both.c.phase_id, both.c.status)


async def lock_column(tx: Tx, project_id: str, column_id: str) -> None:
    """Lets one move at a time count and enter a column of a project."""
    await tx.session.execute(_LOCK_COLUMN, {"key": f"{project_id}/{column_id}"})


async def active_agents(tx: Tx, project_id: str, organization_id: str) -> int:
    """Distinct agents at work for a project."""
    statement = select(func.count(Task.assigned_agent_id.distinct())).where(
        Task.organization_id == organization_id,
        Task.project_id == project_id,
        Task.status.in_(("assigned", "running")),
    )
    return await tx.session.scalar(statement) or 0
