"""HTTP edge of tasks. Literal paths come before those with an id."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Query

from servicekit.auth import CurrentUser
from servicekit.http import Page, problems
from workflow_service.errors import (
    DEPENDENCIES_FIXED,
    DEPENDENCY_CYCLE,
    DEPENDENCY_NOT_FOUND,
    EXECUTION_ENDED,
    NO_DEPENDENCIES,
    TASK_ENDED,
    TASK_NOT_CANCELLABLE,
    TASK_NOT_FOUND,
    TASK_NOT_RETRYABLE,
    TASK_TRANSITION_REFUSED,
    TICKET_NOT_APPROVED,
    TICKET_NOT_FOUND,
)
from workflow_service.tasks.schemas import (
    CancelBody,
    Cancelled,
    CircularCheck,
    CleanedUp,
    ConversationBody,
    ConversationRegistered,
    Dependencies,
    FailBody,
    Failed,
    Id,
    ReadinessOut,
    Retried,
    TaskCreate,
    TaskDependencies,
    TaskDependenciesFull,
    TaskListItem,
    TaskOut,
    TaskPatch,
    TimedTask,
    TimeoutBody,
    TimeoutSet,
    TimeoutStatus,
)
from workflow_service.tasks.service import TaskService

Filter = Annotated[str | None, Query(max_length=100)]


def router(tasks: TaskService) -> APIRouter:
    """`/api/v1/tasks`."""
    api = APIRouter(prefix="/api/v1/tasks", tags=["tasks"])

    @api.get("", responses=problems(TICKET_NOT_FOUND))
    async def list_tasks(
        user: CurrentUser,
        page: Page,
        status: Filter = None,
        phase_id: Filter = None,
        has_sandbox: bool | None = None,
        ticket_id: Filter = None,
        project_id: Filter = None,
    ) -> list[TaskListItem]:
        return await tasks.page(
            user,
            status=status,
            phase_id=phase_id,
            has_sandbox=has_sandbox,
            ticket_id=ticket_id,
            project_id=project_id,
            limit=page.limit,
            offset=page.offset,
        )

    @api.post("", status_code=201, responses=problems(TICKET_NOT_FOUND, DEPENDENCY_NOT_FOUND, TICKET_NOT_APPROVED))
    async def create_task(body: TaskCreate, user: CurrentUser) -> TaskOut:
        return await tasks.create(user, body)

    @api.get("/timed-out")
    async def list_timed_out_tasks(user: CurrentUser) -> list[TimedTask]:
        return await tasks.at_work(user, None, timed_out=True)

    @api.get("/cancellable")
    async def list_cancellable_tasks(user: CurrentUser, agent_id: Filter = None) -> list[TimedTask]:
        return await tasks.at_work(user, agent_id, timed_out=False)

    @api.post("/cleanup-timed-out")
    async def clean_up_timed_out_tasks(user: CurrentUser) -> CleanedUp:
        return await tasks.clean_up(user)

    @api.get("/{task_id}", responses=problems(TASK_NOT_FOUND))
    async def get_task(task_id: str, user: CurrentUser) -> TaskOut:
        return await tasks.get(user, task_id)

    @api.patch("/{task_id}", responses=problems(TASK_NOT_FOUND, TASK_TRANSITION_REFUSED, EXECUTION_ENDED))
    async def update_task(task_id: str, body: TaskPatch, user: CurrentUser) -> TaskOut:
        return await tasks.patch(user, task_id, body)

    @api.get("/{task_id}/readiness", responses=problems(TASK_NOT_FOUND))
    async def get_task_readiness(task_id: str, user: CurrentUser) -> ReadinessOut:
        return await tasks.readiness(user, task_id)

    @api.post("/{task_id}/cancel", responses=problems(TASK_NOT_FOUND, TASK_NOT_CANCELLABLE))
    async def cancel_task(
        task_id: str, user: CurrentUser, body: Annotated[CancelBody | None, Body()] = None
    ) -> Cancelled:
        return await tasks.cancel(user, task_id, (body or CancelBody()).reason)

    @api.post("/{task_id}/fail", responses=problems(TASK_NOT_FOUND, TASK_ENDED))
    async def fail_task(task_id: str, user: CurrentUser, body: Annotated[FailBody | None, Body()] = None) -> Failed:
        return await tasks.fail(user, task_id, (body or FailBody()).reason)

    @api.post("/{task_id}/retry", responses=problems(TASK_NOT_FOUND, TASK_NOT_RETRYABLE, EXECUTION_ENDED))
    async def retry_task(task_id: str, user: CurrentUser) -> Retried:
        return await tasks.retry(user, task_id)

    @api.get("/{task_id}/dependencies", responses=problems(TASK_NOT_FOUND))
    async def get_task_dependencies(task_id: str, user: CurrentUser) -> TaskDependenciesFull:
        return await tasks.dependencies(user, task_id)

    @api.post("/{task_id}/check-circular", responses=problems(TASK_NOT_FOUND))
    async def check_circular_dependency(
        task_id: str, body: Annotated[list[Id], Body(max_length=500)], user: CurrentUser
    ) -> CircularCheck:
        return await tasks.check_circular(user, task_id, body)

    @api.post(
        "/{task_id}/dependencies",
        responses=problems(TASK_NOT_FOUND, DEPENDENCY_NOT_FOUND, DEPENDENCY_CYCLE, DEPENDENCIES_FIXED),
    )
    async def add_task_dependencies(task_id: str, body: Dependencies, user: CurrentUser) -> TaskDependencies:
        return await tasks.set_dependencies(user, task_id, body.depends_on, replace=False)

    @api.put(
        "/{task_id}/dependencies",
        responses=problems(TASK_NOT_FOUND, DEPENDENCY_NOT_FOUND, DEPENDENCY_CYCLE, DEPENDENCIES_FIXED),
    )
    async def set_task_dependencies(task_id: str, body: Dependencies, user: CurrentUser) -> TaskDependencies:
        return await tasks.set_dependencies(user, task_id, body.depends_on, replace=True)

    @api.delete(
        "/{task_id}/dependencies/{depends_on_task_id}",
        responses=problems(TASK_NOT_FOUND, DEPENDENCY_NOT_FOUND, NO_DEPENDENCIES, DEPENDENCIES_FIXED),
    )
    async def remove_task_dependency(task_id: str, depends_on_task_id: str, user: CurrentUser) -> TaskDependencies:
        return await tasks.remove_dependency(user, task_id, depends_on_task_id)

    @api.get("/{task_id}/timeout-status", responses=problems(TASK_NOT_FOUND))
    async def get_timeout_status(task_id: str, user: CurrentUser) -> TimeoutStatus:
        return await tasks.timeout_status(user, task_id)

    @api.post("/{task_id}/set-timeout", responses=problems(TASK_NOT_FOUND, TASK_ENDED))
    async def set_task_timeout(task_id: str, body: TimeoutBody, user: CurrentUser) -> TimeoutSet:
        return await tasks.set_timeout(user, task_id, body.timeout_seconds)

    @api.post("/{task_id}/register-conversation", responses=problems(TASK_NOT_FOUND))
    async def register_conversation(task_id: str, body: ConversationBody, user: CurrentUser) -> ConversationRegistered:
        return await tasks.register_conversation(user, task_id, body)

    return api
