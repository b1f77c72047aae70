"""`/api/v1/commits`."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query

from servicekit.auth import CurrentUser
from servicekit.http import problems
from vcs_service import errors
from vcs_service.commits.schemas import CommitOut, CommitsOut, DiffOut, LinkCommit
from vcs_service.commits.service import CommitService

Limit = Annotated[int, Query(ge=1, le=1000)]
Offset = Annotated[int, Query(ge=0, le=1_000_000)]
CommitSha = Annotated[str, Path(pattern=r"^[0-9a-fA-F]{7,64}$")]
AgentId = Annotated[str, Path(max_length=100)]
FilePath = Annotated[str, Query(max_length=4096)]


def router(commits: CommitService) -> APIRouter:
    """Commits linked to tickets."""
    routes = APIRouter(prefix="/api/v1/commits", tags=["commits"])

    @routes.get("/ticket/{ticket_id}", responses=problems(errors.TICKET_NOT_FOUND))
    async def list_ticket_commits(
        ticket_id: UUID, user: CurrentUser, limit: Limit = 100, offset: Offset = 0
    ) -> CommitsOut:
        """The commits of a ticket, newest first."""
        return await commits.of_ticket(user, str(ticket_id), limit, offset)

    @routes.post("/ticket/{ticket_id}/link", responses=problems(errors.TICKET_NOT_FOUND, errors.COMMIT_LINKED))
    async def link_commit(ticket_id: UUID, body: LinkCommit, user: CurrentUser) -> CommitOut:
        """Link a commit to a ticket by hand."""
        return await commits.link(user, str(ticket_id), body)

    @routes.get("/agent/{agent_id}")
    async def list_agent_commits(
        agent_id: AgentId, user: CurrentUser, limit: Limit = 100, offset: Offset = 0
    ) -> CommitsOut:
        """The commits of an agent, newest first."""
        return await commits.of_agent(user, agent_id, limit, offset)

    @routes.get("/{commit_sha}", responses=problems(errors.COMMIT_NOT_FOUND))
    async def get_commit(commit_sha: CommitSha, user: CurrentUser) -> CommitOut:
        """One commit by its id or the first characters of it, 7 at least."""
        return await commits.get(user, commit_sha.lower())

    @routes.get("/{commit_sha}/diff", responses=problems(errors.COMMIT_NOT_FOUND))
    async def get_commit_diff(commit_sha: CommitSha, user: CurrentUser, file_path: FilePath | None = None) -> DiffOut:
        """What a commit changed, per file."""
        return await commits.diff(user, commit_sha.lower(), file_path)

    return routes
