"""HTTP edge of results."""

from __future__ import annotations

from fastapi import APIRouter

from servicekit.auth import CurrentUser
from servicekit.http import problems
from workflow_service.errors import (
    NOT_THE_TASKS_AGENT,
    RESULT_DECIDED,
    RESULT_NOT_FOUND,
    TASK_NOT_FOUND,
    TICKET_NOT_FOUND,
)
from workflow_service.results.schemas import (
    AgentResultOut,
    ReportBody,
    SubmitBody,
    SubmitOut,
    ValidateBody,
    ValidateOut,
    WorkflowResultOut,
)
from workflow_service.results.service import ResultService


def router(results: ResultService) -> APIRouter:
    """`/api/v1/report_results`, `/submit_result…`, and the results of tasks and workflows."""
    api = APIRouter(prefix="/api/v1", tags=["results"])

    @api.post("/report_results", responses=problems(TASK_NOT_FOUND, NOT_THE_TASKS_AGENT))
    async def report_results(body: ReportBody, user: CurrentUser) -> AgentResultOut:
        return await results.report(user, body)

    @api.post("/submit_result", responses=problems(TICKET_NOT_FOUND))
    async def submit_result(body: SubmitBody, user: CurrentUser) -> SubmitOut:
        return await results.submit(user, body)

    @api.post("/submit_result_validation", responses=problems(RESULT_NOT_FOUND, RESULT_DECIDED))
    async def validate_result(body: ValidateBody, user: CurrentUser) -> ValidateOut:
        return await results.validate(user, body)

    @api.get("/workflows/{workflow_id}/results", responses=problems(TICKET_NOT_FOUND))
    async def list_workflow_results(workflow_id: str, user: CurrentUser) -> list[WorkflowResultOut]:
        return await results.of_workflow(user, workflow_id)

    @api.get("/tasks/{task_id}/results", responses=problems(TASK_NOT_FOUND))
    async def list_task_results(task_id: str, user: CurrentUser) -> list[AgentResultOut]:
        return await results.of_task(user, task_id)

    return api
