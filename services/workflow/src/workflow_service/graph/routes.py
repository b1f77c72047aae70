"""HTTP edge of the graph."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from servicekit.auth import CurrentUser
from servicekit.http import problems
from workflow_service.errors import PROJECT_NOT_FOUND, TASK_NOT_FOUND, TICKET_NOT_FOUND
from workflow_service.graph.schemas import BlockedTasks, BlockingTasks, DependencyGraph
from workflow_service.graph.service import GraphService


def router(graph: GraphService) -> APIRouter:
    """`/api/v1/graph`."""
    api = APIRouter(prefix="/api/v1/graph/dependency-graph", tags=["graph"])

    @api.get("/project/{project_id}", responses=problems(PROJECT_NOT_FOUND))
    async def get_project_graph(project_id: str, user: CurrentUser, include_resolved: bool = True) -> DependencyGraph:
        return await graph.of_project(user, project_id, include_resolved)

    @api.get("/ticket/{ticket_id}", responses=problems(TICKET_NOT_FOUND))
    async def get_ticket_graph(
        ticket_id: UUID, user: CurrentUser, include_resolved: bool = True, include_discoveries: bool = True
    ) -> DependencyGraph:
        return await graph.of_ticket(user, str(ticket_id), include_resolved)

    @api.get("/task/{task_id}/blocked", responses=problems(TASK_NOT_FOUND))
    async def list_blocked_tasks(task_id: str, user: CurrentUser) -> BlockedTasks:
        return await graph.blocked(user, task_id)

    @api.get("/task/{task_id}/blocking", responses=problems(TASK_NOT_FOUND))
    async def list_blocking_tasks(task_id: str, user: CurrentUser) -> BlockingTasks:
        return await graph.blocking(user, task_id)

    return api
