"""HTTP edge of the board, and the counts of a project."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from servicekit.auth import CurrentUser
from servicekit.http import problems
from workflow_service.board.schemas import (
    AutoTransition,
    BoardView,
    ColumnOut,
    ColumnStats,
    MoveBody,
    Moved,
    ProjectStats,
    WipViolation,
)
from workflow_service.board.service import BoardService
from workflow_service.errors import (
    BOARD_COLUMN_NOT_FOUND,
    COLUMN_NOT_FOUND,
    PROJECT_NOT_FOUND,
    TICKET_NOT_FOUND,
    TRANSITION_REFUSED,
    WIP_LIMIT_REACHED,
)

ProjectFilter = Annotated[str | None, Query(max_length=100)]


def router(board: BoardService) -> APIRouter:
    """`/api/v1/board`."""
    api = APIRouter(prefix="/api/v1/board", tags=["board"])

    @api.get("/view", responses=problems(PROJECT_NOT_FOUND))
    async def view_board(user: CurrentUser, project_id: ProjectFilter = None) -> BoardView:
        return await board.view(user, project_id)

    @api.post("/move", responses=problems(TICKET_NOT_FOUND, COLUMN_NOT_FOUND, WIP_LIMIT_REACHED, TRANSITION_REFUSED))
    async def move_ticket(body: MoveBody, user: CurrentUser) -> Moved:
        return await board.move(user, str(body.ticket_id), body.target_column_id, body.force)

    @api.get("/stats", responses=problems(PROJECT_NOT_FOUND))
    async def get_board_stats(user: CurrentUser, project_id: ProjectFilter = None) -> list[ColumnStats]:
        return await board.stats(user, project_id)

    @api.get("/wip-violations", responses=problems(PROJECT_NOT_FOUND))
    async def list_wip_violations(user: CurrentUser, project_id: ProjectFilter = None) -> list[WipViolation]:
        return await board.violations(user, project_id)

    @api.post("/auto-transition/{ticket_id}", responses=problems(TICKET_NOT_FOUND))
    async def auto_transition_ticket(ticket_id: UUID, user: CurrentUser) -> AutoTransition:
        return await board.auto_transition(user, str(ticket_id))

    @api.get("/column/{phase_id}", responses=problems(BOARD_COLUMN_NOT_FOUND))
    async def get_column_of_phase(phase_id: str, user: CurrentUser) -> ColumnOut:
        return board.column(phase_id)

    return api


def stats_router(board: BoardService) -> APIRouter:
    """The counts of a project, which need its tickets."""
    api = APIRouter(prefix="/api/v1/projects", tags=["projects"])

    @api.get("/{project_id}/stats", responses=problems(PROJECT_NOT_FOUND))
    async def get_project_stats(project_id: str, user: CurrentUser) -> ProjectStats:
        return await board.project_stats(user, project_id)

    return api
