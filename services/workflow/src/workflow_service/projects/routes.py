"""HTTP edge of projects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query

from servicekit.auth import CurrentUser
from servicekit.http import problems
from servicekit.http.paging import MAX_OFFSET
from workflow_service.errors import ORGANIZATION_NOT_FOUND, PROJECT_NAME_TAKEN, PROJECT_NOT_FOUND
from workflow_service.projects.schemas import ProjectArchived, ProjectCreate, ProjectList, ProjectOut, ProjectPatch
from workflow_service.projects.service import ProjectService

Status = Annotated[str | None, Query(max_length=50)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Offset = Annotated[int, Query(ge=0, le=MAX_OFFSET)]


def router(projects: ProjectService, phases: Sequence[str]) -> APIRouter:
    """`/api/v1/projects`. `phases`: ids that a default phase may have."""
    api = APIRouter(prefix="/api/v1/projects", tags=["projects"])

    @api.post("", responses=problems(ORGANIZATION_NOT_FOUND, PROJECT_NAME_TAKEN))
    async def create_project(body: ProjectCreate, user: CurrentUser) -> ProjectOut:
        return await projects.create(user, body, phases)

    @api.get("")
    async def list_projects(
        user: CurrentUser, status: Status = None, limit: Limit = 100, offset: Offset = 0
    ) -> ProjectList:
        return await projects.page(user, status, limit, offset)

    @api.get("/{project_id}", responses=problems(PROJECT_NOT_FOUND))
    async def get_project(project_id: str, user: CurrentUser) -> ProjectOut:
        return await projects.get(user, project_id)

    @api.patch("/{project_id}", responses=problems(PROJECT_NOT_FOUND, PROJECT_NAME_TAKEN))
    async def update_project(project_id: str, body: ProjectPatch, user: CurrentUser) -> ProjectOut:
        return await projects.patch(user, project_id, body, phases)

    @api.delete("/{project_id}", responses=problems(PROJECT_NOT_FOUND))
    async def archive_project(project_id: str, user: CurrentUser) -> ProjectArchived:
        return await projects.archive(user, project_id)

    return api
