"""HTTP edge of the parts of a spec."""

from __future__ import annotations

from fastapi import APIRouter

from servicekit.auth import CurrentUser
from servicekit.http import problems
from workflow_service.errors import (
    CRITERION_NOT_FOUND,
    NOTHING_TO_APPROVE,
    REQUIREMENT_NOT_FOUND,
    REQUIREMENTS_NOT_APPROVED,
    SPEC_EXECUTING,
    SPEC_NOT_FOUND,
    SPEC_TASK_NOT_FOUND,
)
from workflow_service.specs.parts_service import SpecPartsService
from workflow_service.specs.schemas import (
    CriteriaStatus,
    CriterionCreate,
    CriterionOut,
    CriterionPatch,
    Design,
    DesignOut,
    LinkBody,
    Linked,
    LinkedTickets,
    Message,
    RequirementCreate,
    RequirementOut,
    RequirementPatch,
    SpecTaskCreate,
    SpecTaskOut,
    SpecTaskPatch,
    Unlinked,
)

_SPEC = problems(SPEC_NOT_FOUND)
_REQUIREMENT = problems(SPEC_NOT_FOUND, REQUIREMENT_NOT_FOUND)
_CRITERION = problems(SPEC_NOT_FOUND, REQUIREMENT_NOT_FOUND, CRITERION_NOT_FOUND)
_TASK = problems(SPEC_NOT_FOUND, SPEC_TASK_NOT_FOUND)


def router(parts: SpecPartsService) -> APIRouter:
    """Requirements, criteria, design, tasks, approvals and tickets of `/api/v1/specs/{spec_id}`."""
    api = APIRouter(prefix="/api/v1/specs/{spec_id}", tags=["specs"])

    @api.post("/requirements", responses=_SPEC)
    async def add_requirement(spec_id: str, body: RequirementCreate, user: CurrentUser) -> RequirementOut:
        return await parts.add_requirement(user, spec_id, body)

    @api.patch("/requirements/{req_id}", responses=_REQUIREMENT)
    async def update_requirement(
        spec_id: str, req_id: str, body: RequirementPatch, user: CurrentUser
    ) -> RequirementOut:
        return await parts.change_requirement(user, spec_id, req_id, body)

    @api.delete("/requirements/{req_id}", responses=_REQUIREMENT)
    async def delete_requirement(spec_id: str, req_id: str, user: CurrentUser) -> Message:
        return await parts.remove_requirement(user, spec_id, req_id)

    @api.post("/requirements/{req_id}/criteria", responses=_REQUIREMENT)
    async def add_criterion(spec_id: str, req_id: str, body: CriterionCreate, user: CurrentUser) -> CriterionOut:
        return await parts.add_criterion(user, spec_id, req_id, body)

    @api.patch("/requirements/{req_id}/criteria/{criterion_id}", responses=_CRITERION)
    async def update_criterion(
        spec_id: str, req_id: str, criterion_id: str, body: CriterionPatch, user: CurrentUser
    ) -> CriterionOut:
        return await parts.change_criterion(user, spec_id, req_id, criterion_id, body)

    @api.delete("/requirements/{req_id}/criteria/{criterion_id}", responses=_CRITERION)
    async def delete_criterion(spec_id: str, req_id: str, criterion_id: str, user: CurrentUser) -> Message:
        return await parts.remove_criterion(user, spec_id, req_id, criterion_id)

    @api.get("/criteria-status", responses=_SPEC)
    async def get_criteria_status(spec_id: str, user: CurrentUser) -> CriteriaStatus:
        return await parts.criteria_status(user, spec_id)

    @api.put("/design", responses=_SPEC)
    async def set_design(spec_id: str, body: Design, user: CurrentUser) -> DesignOut:
        return await parts.set_design(user, spec_id, body)

    @api.post("/approve-requirements", responses=problems(SPEC_NOT_FOUND, NOTHING_TO_APPROVE))
    async def approve_requirements(spec_id: str, user: CurrentUser) -> Message:
        return await parts.approve_requirements(user, spec_id)

    @api.post("/approve-design", responses=problems(SPEC_NOT_FOUND, NOTHING_TO_APPROVE, REQUIREMENTS_NOT_APPROVED))
    async def approve_design(spec_id: str, user: CurrentUser) -> Message:
        return await parts.approve_design(user, spec_id)

    @api.get("/tasks", responses=_SPEC)
    async def list_spec_tasks(spec_id: str, user: CurrentUser) -> list[SpecTaskOut]:
        return await parts.tasks(user, spec_id)

    @api.post("/tasks", responses=_SPEC)
    async def add_spec_task(spec_id: str, body: SpecTaskCreate, user: CurrentUser) -> SpecTaskOut:
        return await parts.add_task(user, spec_id, body)

    @api.patch("/tasks/{task_id}", responses=_TASK)
    async def update_spec_task(spec_id: str, task_id: str, body: SpecTaskPatch, user: CurrentUser) -> SpecTaskOut:
        return await parts.change_task(user, spec_id, task_id, body)

    @api.delete("/tasks/{task_id}", responses=problems(SPEC_NOT_FOUND, SPEC_TASK_NOT_FOUND, SPEC_EXECUTING))
    async def delete_spec_task(spec_id: str, task_id: str, user: CurrentUser) -> Message:
        return await parts.remove_task(user, spec_id, task_id)

    @api.post("/link-tickets", responses=_SPEC)
    async def link_tickets(spec_id: str, body: LinkBody, user: CurrentUser) -> Linked:
        return await parts.link_tickets(user, spec_id, body)

    @api.post("/unlink-tickets", responses=_SPEC)
    async def unlink_tickets(spec_id: str, body: LinkBody, user: CurrentUser) -> Unlinked:
        return await parts.unlink_tickets(user, spec_id, body)

    @api.get("/linked-tickets", responses=_SPEC)
    async def list_linked_tickets(spec_id: str, user: CurrentUser) -> LinkedTickets:
        return await parts.linked_tickets(user, spec_id)

    return api
