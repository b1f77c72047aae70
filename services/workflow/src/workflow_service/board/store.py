"""SQL of the board: the newest cards of each column, and counts."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Text as SqlText
from sqlalchemy import column as sql_column
from sqlalchemy import func, select, text, true, values

from servicekit.db import Tx
from workflow_service.engine.tables import Ticket, TicketCount, TicketCountDelta
from workflow_service.queue.tables import Task


async def cards(tx: Tx, project_ids: Sequence[str], phases: Sequence[str], per_phase: int) -> list[Ticket]:
    """The newest `per_phase` tickets of each phase of each project, newest first."""
    if not project_ids:
        return []
    lanes = values(sql_column("project_id", SqlText), sql_column("phase_id", SqlText), name="lanes").data(
        [(project, phase) for project in project_ids for phase in phases]
    )
    newest = (
        select(Ticket.id)
        .where(Ticket.project_id == lanes.c.project_id, Ticket.phase_id == lanes.c.phase_id, Ticket.hidden.is_(False))
        .order_by(Ticket.created_at.desc(), Ticket.id.desc())
        .limit(per_phase)
        .lateral("newest")
    )
    chosen = select(newest.c.id).select_from(lanes).join(newest, true()).subquery()
    rows = await tx.session.scalars(
        select(Ticket).join(chosen, chosen.c.id == Ticket.id).order_by(Ticket.created_at.desc(), Ticket.id.desc())
    )
    return list(rows.all())


async def counts(tx: Tx, project_ids: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Tickets by phase and by status, from the counts: the cost does not grow with the number of tickets."""
    by_phase: dict[str, int] = {}
    by_status: dict[str, int] = {}
    for table in (TicketCount, TicketCountDelta):
        rows = await tx.session.execute(
            select(table.phase_id, table.status, func.sum(table.tickets))
            .where(table.project_id.in_(project_ids))
            .group_by(table.phase_id, table.status)
        )
        for phase, status, tickets in rows:
            by_phase[phase] = by_phase.get(phase, 0) + int(tickets)
            by_status[status] = by_status.get(status, 0) + int(tickets)
    return ({k: v for k, v in by_phase.items() if v}, {k: v for k, v in by_status.items() if v})


async def lock_column(tx: Tx, project_id: str, column_id: str) -> None:
    """Lets one move at a time count and enter a column of a project."""
    await tx.session.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 9))"), {"key": f"{project_id}/{column_id}"}
    )


async def active_agents(tx: Tx, project_id: str, organization_id: str) -> int:
    """Distinct agents at work for a project."""
    statement = select(func.count(Task.assigned_agent_id.distinct())).where(
        Task.organization_id == organization_id,
        Task.project_id == project_id,
        Task.status.in_(("assigned", "running")),
    )
    return await tx.session.scalar(statement) or 0
