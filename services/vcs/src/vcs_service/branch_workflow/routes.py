"""`/api/v1/branch-workflow`."""

from __future__ import annotations

from fastapi import APIRouter

from servicekit.auth import CurrentUser
from servicekit.http import problems
from vcs_service import errors
from vcs_service.branch_workflow.schemas import (
    BranchStatus,
    FinishBranch,
    FinishedOut,
    MergeBranch,
    MergedOut,
    PushBranch,
    PushedOut,
    StartBranch,
    StartedOut,
    StatusOut,
)
from vcs_service.branch_workflow.ticket_service import TicketBranchService


def router(branches: TicketBranchService) -> APIRouter:
    """The life of a ticket's branch."""
    routes = APIRouter(prefix="/api/v1/branch-workflow", tags=["branch_workflow"])

    @routes.post("/start", responses=problems(errors.TICKET_NOT_FOUND))
    async def start_branch(body: StartBranch, user: CurrentUser) -> StartedOut:
        """Make the branch of a ticket; asked for again it is the same."""
        return await branches.start(user, body)

    @routes.post("/finish", responses=problems(errors.TICKET_NOT_FOUND))
    async def finish_branch(body: FinishBranch, user: CurrentUser) -> FinishedOut:
        """The work on a ticket's branch is done: its commits are linked to the ticket."""
        return await branches.finish(user, body)

    @routes.post("/merge", responses=problems(errors.TICKET_NOT_FOUND))
    async def merge_branch(body: MergeBranch, user: CurrentUser) -> MergedOut:
        """Merge a ticket's branch into a branch of ours."""
        return await branches.merge(user, body)

    @routes.post("/status", responses=problems(errors.TICKET_NOT_FOUND, errors.PROJECT_NOT_FOUND))
    async def branch_status(body: BranchStatus, user: CurrentUser) -> StatusOut:
        """How a branch stands to the default branch."""
        return await branches.status(user, body)

    @routes.post("/push", responses=problems(errors.PROJECT_NOT_FOUND, errors.BRANCH_NOT_FOUND, errors.GIT_FAILED))
    async def push_branch(body: PushBranch, user: CurrentUser) -> PushedOut:
        """Push a branch of ours to the project's own repository."""
        return await branches.push(user, body)

    return routes
