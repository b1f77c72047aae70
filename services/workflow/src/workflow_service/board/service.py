"""Use cases of the board: columns with their newest cards, and moves through the engine."""

from __future__ import annotations

from servicekit.auth import Principal
from servicekit.db import Database, Tx
from workflow_service.board import rules, store
from workflow_service.board.rules import Column
from workflow_service.board.schemas import (
    AutoTransition,
    BoardColumn,
    BoardTicket,
    BoardView,
    ColumnOut,
    ColumnStats,
    Moved,
    ProjectStats,
    WipViolation,
)
from workflow_service.engine.rules import Refusal
from workflow_service.engine.service import EngineService, refused
from workflow_service.engine.tables import Ticket
from workflow_service.errors import BOARD_COLUMN_NOT_FOUND, COLUMN_NOT_FOUND, WIP_LIMIT_REACHED
from workflow_service.projects.service import ProjectService

# A column shows its newest cards; the rest is read by GET /tickets with its phase.
CARDS_PER_PHASE = 100
# Without a project the board shows the caller's newest projects together.
PROJECTS_WITHOUT_CHOICE = 50


class BoardService:
    """One board for each project; without one, the caller's projects together."""

    def __init__(self, db: Database, projects: ProjectService, engine: EngineService) -> None:
        self._db = db
        self._projects = projects
        self._engine = engine

    async def _chosen(self, tx: Tx, principal: Principal, project_id: str | None) -> list[str]:
        if project_id is not None:
            return [(await self._projects.require(tx, principal, "ticket:read", project_id)).id]
        organizations = principal.organizations_with("ticket:read")
        return await self._projects.newest_of(tx, organizations, PROJECTS_WITHOUT_CHOICE)

    async def view(self, principal: Principal, project_id: str | None) -> BoardView:
        """All columns in their order. Raises 404 for a foreign project."""
        async with self._db.reader() as tx:
            projects = await self._chosen(tx, principal, project_id)
            rows = await store.cards(tx, projects, list(rules.BY_PHASE), CARDS_PER_PHASE)
            by_phase, _ = await store.counts(tx, projects)
        cards: dict[str, list[BoardTicket]] = {}
        for row in rows:
            cards.setdefault(rules.BY_PHASE[row.phase_id].id, []).append(BoardTicket.model_validate(row))
        return BoardView(
            columns=[
                _column(column, rules.count_of(column, by_phase), cards.get(column.id, [])) for column in rules.COLUMNS
            ]
        )

    async def move(self, principal: Principal, ticket_id: str, column_id: str, force: bool) -> Moved:
        """Move a card. Raises 400 for an unknown column, a full one, or a move that the engine refuses."""
        column = rules.BY_ID.get(column_id)
        if column is None:
            raise COLUMN_NOT_FOUND()
        async with self._db.uow() as tx:
            ticket = await self._engine.require(tx, principal, "ticket:write", ticket_id, lock=True)
            if ticket.phase_id not in column.phases:
                await self._enter(tx, ticket, column, principal.subject, force)
            return tx.result(
                Moved(ticket_id=ticket.id, new_phase=ticket.phase_id, new_column=column.id, status="moved")
            )

    async def _enter(self, tx: Tx, ticket: Ticket, column: Column, by: str, force: bool) -> None:
        if not force and column.wip_limit is not None:
            await store.lock_column(tx, ticket.project_id, column.id)
            by_phase, _ = await store.counts(tx, [ticket.project_id])
            count = rules.count_of(column, by_phase)
            if rules.is_full(column, count):
                raise WIP_LIMIT_REACHED(
                    f"'{column.id}' holds {count} of {column.wip_limit} tickets.", limit=column.wip_limit, count=count
                )
        here = rules.BY_PHASE[ticket.phase_id].id
        decision = await self._engine.move_on_board(tx, ticket, column.phases[0], by, force, (here, column.id))
        if isinstance(decision, Refusal):
            raise refused(decision)

    async def auto_transition(self, principal: Principal, ticket_id: str) -> AutoTransition:
        """Move a card to the column that follows its own by itself, if there is one and it has room."""
        async with self._db.uow() as tx:
            ticket = await self._engine.require(tx, principal, "ticket:write", ticket_id, lock=True)
            following = rules.BY_PHASE[ticket.phase_id].auto_transition_to
            if following is None:
                reason = "the column has no following one"
                return tx.result(AutoTransition(ticket_id=ticket_id, transitioned=False, reason=reason))
            column = rules.BY_ID[following]
            if column.wip_limit is not None:
                await store.lock_column(tx, ticket.project_id, column.id)
                by_phase, _ = await store.counts(tx, [ticket.project_id])
                if rules.is_full(column, rules.count_of(column, by_phase)):
                    reason = f"'{column.id}' is full"
                    return tx.result(AutoTransition(ticket_id=ticket_id, transitioned=False, reason=reason))
            here = rules.BY_PHASE[ticket.phase_id].id
            decision = await self._engine.move_on_board(
                tx, ticket, column.phases[0], principal.subject, False, (here, column.id)
            )
            if isinstance(decision, Refusal):
                reason = "; ".join(decision.reasons)
                return tx.result(AutoTransition(ticket_id=ticket_id, transitioned=False, reason=reason))
            return tx.result(AutoTransition(ticket_id=ticket_id, transitioned=True, new_phase=ticket.phase_id))

    async def stats(self, principal: Principal, project_id: str | None) -> list[ColumnStats]:
        """How full each column is."""
        by_phase = await self._by_phase(principal, project_id)
        found = []
        for column in rules.COLUMNS:
            count = rules.count_of(column, by_phase)
            found.append(
                ColumnStats(
                    column_id=column.id,
                    name=column.name,
                    ticket_count=count,
                    wip_limit=column.wip_limit,
                    utilization=round(count / column.wip_limit, 4) if column.wip_limit else None,
                    wip_exceeded=rules.exceeds(column, count),
                )
            )
        return found

    async def violations(self, principal: Principal, project_id: str | None) -> list[WipViolation]:
        """Columns with more tickets than allowed."""
        by_phase = await self._by_phase(principal, project_id)
        return [
            WipViolation(
                column_id=column.id,
                column_name=column.name,
                wip_limit=column.wip_limit,
                current_count=count,
                excess=count - column.wip_limit,
            )
            for column in rules.COLUMNS
            if (count := rules.count_of(column, by_phase)) and column.wip_limit is not None and count > column.wip_limit
        ]

    async def _by_phase(self, principal: Principal, project_id: str | None) -> dict[str, int]:
        async with self._db.reader() as tx:
            return (await store.counts(tx, await self._chosen(tx, principal, project_id)))[0]

    def column(self, phase_id: str) -> ColumnOut:
        """The column that shows a phase. Raises 404 where none does."""
        column = rules.BY_PHASE.get(phase_id)
        if column is None:
            raise BOARD_COLUMN_NOT_FOUND()
        return ColumnOut(
            id=column.id,
            name=column.name,
            description=column.description,
            sequence_order=column.sequence_order,
            order=column.sequence_order,
            phase_mapping=list(column.phases),
            phase_mappings=list(column.phases),
            wip_limit=column.wip_limit,
            is_terminal=column.is_terminal,
            auto_transition_to=column.auto_transition_to,
            color_theme=column.color_theme,
        )

    async def project_stats(self, principal: Principal, project_id: str) -> ProjectStats:
        """Counts of a project."""
        async with self._db.reader() as tx:
            project = await self._projects.require(tx, principal, "project:read", project_id)
            by_phase, by_status = await store.counts(tx, [project_id])
            agents = await store.active_agents(tx, project_id, project.organization_id)
        return ProjectStats(
            project_id=project_id,
            total_tickets=sum(by_phase.values()),
            tickets_by_status=by_status,
            tickets_by_phase=by_phase,
            active_agents=agents,
            total_commits=await self._projects.commits(project_id),
        )


def _column(column: Column, count: int, tickets: list[BoardTicket]) -> BoardColumn:
    return BoardColumn(
        id=column.id,
        name=column.name,
        description=column.description,
        sequence_order=column.sequence_order,
        order=column.sequence_order,
        phase_mappings=list(column.phases),
        wip_limit=column.wip_limit,
        current_count=count,
        wip_exceeded=rules.exceeds(column, count),
        tickets=tickets,
    )
