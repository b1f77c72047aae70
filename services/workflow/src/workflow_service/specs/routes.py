"""HTTP edge of specs: the spec itself and its execution."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Query

from servicekit.auth import CurrentUser
from servicekit.http import Page, body_limit, problems
from workflow_service.errors import (
    DESIGN_NOT_APPROVED,
    LIMIT_REACHED,
    NOT_EXECUTING,
    NOTHING_TO_EXECUTE,
    PROJECT_ARCHIVED,
    PROJECT_NOT_FOUND,
    REPOSITORY_NOT_READY,
    REQUIREMENTS_NOT_APPROVED,
    SPEC_ARCHIVED,
    SPEC_NOT_FOUND,
)
from workflow_service.specs.execution_service import SpecExecutionService
from workflow_service.specs.schemas import (
    ExecuteBody,
    ExecuteOut,
    ExecuteTasksBody,
    ExecutionChange,
    ExecutionStatus,
    Message,
    PhaseData,
    ReasonBody,
    SpecCreate,
    SpecList,
    SpecOut,
    SpecPatch,
    TasksExecuted,
    VersionList,
)
from workflow_service.specs.service import SpecService

# A plan of 10,000 tasks has about 3 MB; JSON escapes add to it.
PLAN_BODY = 8 * 1024 * 1024

_EXECUTION = (
    SPEC_NOT_FOUND,
    SPEC_ARCHIVED,
    REPOSITORY_NOT_READY,
    REQUIREMENTS_NOT_APPROVED,
    DESIGN_NOT_APPROVED,
    LIMIT_REACHED,
)


def router(specs: SpecService, execution: SpecExecutionService) -> APIRouter:
    """`/api/v1/specs`."""
    api = APIRouter(prefix="/api/v1/specs", tags=["specs"])

    @api.post("", responses=problems(PROJECT_NOT_FOUND, PROJECT_ARCHIVED))
    @body_limit(PLAN_BODY)
    async def create_spec(body: SpecCreate, user: CurrentUser) -> SpecOut:
        return await specs.create(user, body)

    @api.get("/project/{project_id}", responses=problems(PROJECT_NOT_FOUND))
    async def list_project_specs(
        project_id: str,
        user: CurrentUser,
        page: Page,
        status: Annotated[str | None, Query(max_length=50)] = None,
        include_archived: bool = False,
    ) -> SpecList:
        return await specs.page(user, project_id, status, include_archived, page.limit, page.offset)

    @api.get("/{spec_id}", responses=problems(SPEC_NOT_FOUND))
    async def get_spec(spec_id: str, user: CurrentUser) -> SpecOut:
        return await specs.get(user, spec_id)

    @api.patch("/{spec_id}", responses=problems(SPEC_NOT_FOUND))
    async def update_spec(spec_id: str, body: SpecPatch, user: CurrentUser) -> SpecOut:
        return await specs.patch(user, spec_id, body)

    @api.delete("/{spec_id}", responses=problems(SPEC_NOT_FOUND))
    async def archive_spec(spec_id: str, user: CurrentUser) -> Message:
        return await specs.archive(user, spec_id)

    @api.get("/{spec_id}/versions", responses=problems(SPEC_NOT_FOUND))
    async def list_spec_versions(
        spec_id: str, user: CurrentUser, limit: Annotated[int, Query(ge=1, le=100)] = 20
    ) -> VersionList:
        return await specs.versions(user, spec_id, limit)

    @api.get("/{spec_id}/phase-data", responses=problems(SPEC_NOT_FOUND))
    async def get_phase_data(spec_id: str, user: CurrentUser) -> PhaseData:
        return await execution.phase_data(user, spec_id)

    @api.post(
        "/{spec_id}/execute",
        responses=problems(*_EXECUTION, NOTHING_TO_EXECUTE),
    )
    async def execute_spec(
        spec_id: str, user: CurrentUser, body: Annotated[ExecuteBody | None, Body()] = None
    ) -> ExecuteOut:
        return await execution.execute(user, spec_id)

    @api.post(
        "/{spec_id}/execute-tasks",
        responses=problems(*_EXECUTION),
    )
    async def execute_spec_tasks(
        spec_id: str, user: CurrentUser, body: Annotated[ExecuteTasksBody | None, Body()] = None
    ) -> TasksExecuted:
        return await execution.execute_tasks(user, spec_id, body.task_ids if body else None)

    @api.post("/{spec_id}/pause", responses=problems(SPEC_NOT_FOUND, NOT_EXECUTING))
    async def pause_spec(
        spec_id: str, user: CurrentUser, body: Annotated[ReasonBody | None, Body()] = None
    ) -> ExecutionChange:
        return await execution.pause(user, spec_id, body.reason if body else "")

    @api.post("/{spec_id}/resume", responses=problems(SPEC_NOT_FOUND, NOT_EXECUTING))
    async def resume_spec(spec_id: str, user: CurrentUser) -> ExecutionChange:
        return await execution.resume(user, spec_id)

    @api.post("/{spec_id}/cancel", responses=problems(SPEC_NOT_FOUND, NOT_EXECUTING))
    async def cancel_spec(
        spec_id: str, user: CurrentUser, body: Annotated[ReasonBody | None, Body()] = None
    ) -> ExecutionChange:
        return await execution.cancel(user, spec_id, body.reason if body else "")

    @api.get("/{spec_id}/execution-status", responses=problems(SPEC_NOT_FOUND))
    async def get_execution_status(spec_id: str, user: CurrentUser) -> ExecutionStatus:
        return await execution.status(user, spec_id)

    return api
