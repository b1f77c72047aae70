"""Branches: of task attempts (for agents, by RPC) and of tickets (for people, by HTTP)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from servicekit.auth import Principal
from servicekit.db import Database
from servicekit.errors import AppError, Kind, invalid
from vcs_service.branch_workflow import rules, store
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
from vcs_service.branch_workflow.tables import TicketBranch
from vcs_service.commits.service import CommitService
from vcs_service.errors import (
    ATTEMPT_SUPERSEDED,
    BRANCH_NOT_FOUND,
    HEAD_MISMATCH,
    PROJECT_NOT_FOUND,
    REPOSITORY_NOT_FOUND,
    TICKET_NOT_FOUND,
)
from vcs_service.merging.service import MergingService
from vcs_service.mirror import attempts_service as attempts
from vcs_service.mirror import rules as mirror_rules
from vcs_service.mirror.service import MirrorService
from vcs_service.mirror.tables import Branch, Repository
from vcs_service.replica import ReplicaTicket, Tickets

# A spec that starts sees what was pushed a moment ago; longer than this it goes on with what the mirror holds.
REFRESH_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class BranchStart:
    """A branch wanted for one attempt at a task. `base_branch` empty: the project's default branch."""

    project_id: str
    task_id: str
    ticket_id: str
    attempt: int
    base_branch: str
    sandbox_id: str
    spec_id: str
    agent_id: str


@dataclass(frozen=True, slots=True)
class FinishedBranch:
    """What an attempt left on its branch."""

    branch: str
    head_sha: str
    commits: int
    files: Sequence[str]
    insertions: int
    deletions: int


class BranchService:
    """Use cases of branches."""

    def __init__(
        self,
        db: Database,
        mirror: MirrorService,
        merging: MergingService,
        commits: CommitService,
        tickets: Tickets,
    ) -> None:
        self._db = db
        self._mirror = mirror
        self._mirrors = mirror.mirrors
        self._merging = merging
        self._commits = commits
        self._tickets = tickets

    # Attempts at tasks

    async def start_attempt(self, start: BranchStart) -> Branch:
        """The branch of an attempt, made from its base; asked for again it is the same.

        Raises `vcs.attempt_superseded` when a later attempt has a branch, and what `require_ready` raises.
        """
        if start.attempt < 1 or not (start.task_id and start.sandbox_id):
            raise invalid("attempt", "task_id, sandbox_id and an attempt from 1 are needed")
        if start.base_branch and (problem := mirror_rules.branch_problem(start.base_branch)):
            raise invalid("base_branch", problem, start.base_branch)
        repository = await self._mirror.require_ready(start.project_id)
        base_branch = start.base_branch or repository.default_branch
        base_sha = await self._base(repository, base_branch)
        name = mirror_rules.task_branch(start.task_id, start.attempt)
        if (problem := mirror_rules.branch_problem(name)) is not None:
            raise invalid("task_id", problem, start.task_id)
        async with self._db.uow() as tx:
            branch = await attempts.open_attempt(
                tx,
                task_id=start.task_id,
                attempt=start.attempt,
                project_id=start.project_id,
                organization_id=repository.organization_id,
                ticket_id=start.ticket_id,
                spec_id=start.spec_id or None,
                sandbox_id=start.sandbox_id,
                agent_id=start.agent_id or None,
                branch=name,
                base_branch=base_branch,
                base_sha=base_sha,
            )
        if branch is None or branch.sandbox_id != start.sandbox_id:
            raise ATTEMPT_SUPERSEDED()
        # The row is there before the ref: a crash between the two leaves an attempt whose next call makes the ref.
        await self._mirrors.set_ref(
            start.project_id, mirror_rules.head_ref(branch.branch), branch.base_sha, mirror_rules.ZERO_SHA
        )
        return branch

    async def finish_attempt(self, project_id: str, task_id: str, attempt: int, head_sha: str) -> FinishedBranch:
        """Records what an attempt pushed and links its commits to the ticket; asked again it answers the same.

        Raises `vcs.branch_not_found`, `vcs.attempt_superseded`, `vcs.head_mismatch` (409) when the branch is elsewhere.
        """
        async with self._db.reader() as tx:
            branch, superseded = await attempts.find(tx, task_id, attempt)
        if branch is None or branch.project_id != project_id:
            raise BRANCH_NOT_FOUND()
        if superseded:
            raise ATTEMPT_SUPERSEDED()
        stands = await self._mirrors.resolve(project_id, mirror_rules.head_ref(branch.branch))
        head = stands or branch.base_sha
        if head_sha and head_sha != head:
            raise HEAD_MISMATCH(f"The branch stands at {head}, not at {head_sha}.")
        commits = await self._commits.between(project_id, branch.base_sha, head)
        async with self._db.uow() as tx:
            if await attempts.finish(tx, branch, head):
                await self._commits.link_branch(tx, branch, commits)
        files = sorted({path for commit in commits for path in commit.files})
        return FinishedBranch(
            branch=branch.branch,
            head_sha=head if commits else "",
            commits=len(commits),
            files=files,
            insertions=sum(commit.insertions for commit in commits),
            deletions=sum(commit.deletions for commit in commits),
        )

    async def _base(self, repository: Repository, base_branch: str) -> str:
        """The commit to start from; a branch of ours that does not exist yet is made from the default branch."""
        project_id = repository.project_id
        ours = mirror_rules.head_ref(base_branch)
        sha = await self._mirrors.resolve(project_id, ours)
        if sha is not None:
            return sha
        await self._mirror.refresh(repository, timeout_s=REFRESH_TIMEOUT_S)
        sha = await self._mirrors.find_base(project_id, base_branch, repository.default_branch)
        if sha is None:
            raise REPOSITORY_NOT_FOUND("The repository has no branch to start from.")
        if base_branch.startswith(rules.TARGET_PREFIXES):
            await self._mirrors.set_ref(project_id, ours, sha, mirror_rules.ZERO_SHA)
            sha = await self._mirrors.resolve(project_id, ours) or sha
        return sha

    # Branches of tickets

    async def start(self, principal: Principal, body: StartBranch) -> StartedOut:
        """The branch of a ticket, made from the default branch; asked for again it is the same."""
        ticket = await self._ticket(principal, str(body.ticket_id), "ticket:write")
        try:
            repository = await self._mirror.require_ready(ticket.project_id)
            base = await self._mirrors.find_base(
                ticket.project_id, repository.default_branch, repository.default_branch
            )
            if base is None:
                raise REPOSITORY_NOT_FOUND("The repository has no branch to start from.")
            name = rules.branch_name(ticket.ticket_id, body.ticket_title, body.ticket_type, body.priority)
            async with self._db.uow() as tx:
                await store.add(
                    tx,
                    ticket_id=ticket.ticket_id,
                    project_id=ticket.project_id,
                    organization_id=ticket.organization_id,
                    branch=name,
                    base_sha=base,
                )
                branch = await store.find(tx, ticket.ticket_id)
            assert branch is not None
            ref = mirror_rules.head_ref(branch.branch)
            await self._mirrors.set_ref(ticket.project_id, ref, branch.base_sha, mirror_rules.ZERO_SHA)
            sha = await self._mirrors.resolve(ticket.project_id, ref)
        except AppError as error:
            return StartedOut(success=False, error=_said(error))
        return StartedOut(success=True, branch_name=branch.branch, sha=sha)

    async def finish(self, principal: Principal, body: FinishBranch) -> FinishedOut:
        """Records that a ticket's branch is done and links its commits."""
        ticket = await self._ticket(principal, str(body.ticket_id), "ticket:write")
        branch = await self._ticket_branch(ticket, body.branch_name)
        if branch is None:
            return FinishedOut(success=False, error=BRANCH_NOT_FOUND.detail)
        try:
            head = await self._mirrors.resolve(ticket.project_id, mirror_rules.head_ref(branch.branch))
            if head is None:
                raise BRANCH_NOT_FOUND()
            commits = await self._commits.between(ticket.project_id, branch.base_sha, head)
        except AppError as error:
            return FinishedOut(success=False, error=_said(error))
        async with self._db.uow() as tx:
            await store.change(tx, ticket.ticket_id, state="finished", head_sha=head)
        return FinishedOut(success=True, head_sha=head, commits=len(commits))

    async def merge(self, principal: Principal, body: MergeBranch) -> MergedOut:
        """Merges a ticket's branch into a branch of ours (`omoios/<default branch>` unless another is named)."""
        ticket = await self._ticket(principal, str(body.ticket_id), "ticket:write")
        branch = await self._ticket_branch(ticket, None)
        if branch is None:
            return MergedOut(success=False, error=BRANCH_NOT_FOUND.detail)
        try:
            repository = await self._mirror.require_ready(ticket.project_id)
            target = body.target_branch or f"{mirror_rules.SPEC_PREFIX}{repository.default_branch}"
            await self._base(repository, target)
            head = await self._mirrors.resolve(ticket.project_id, mirror_rules.head_ref(branch.branch))
            if head is None:
                raise BRANCH_NOT_FOUND()
            message = f"[{ticket.ticket_id}] Merge {branch.branch}\n\nOmoiOS-Ticket: {ticket.ticket_id}\n"
            merged = await self._merging.merge_now(ticket.project_id, target, head, message)
        except AppError as error:
            return MergedOut(success=False, error=_said(error))
        if merged.outcome == "conflicted":
            return MergedOut(
                success=False,
                target_branch=target,
                has_conflicts=True,
                conflicting_files=list(merged.files),
                error="Both sides changed the same places.",
            )
        async with self._db.uow() as tx:
            await store.change(tx, ticket.ticket_id, state="merged", head_sha=head, merge_sha=merged.sha)
        return MergedOut(success=True, merge_sha=merged.sha, target_branch=target)

    async def status(self, principal: Principal, body: BranchStatus) -> StatusOut:
        """How a branch stands to the default branch, and whether merging it there would conflict."""
        if body.ticket_id is not None:
            ticket = await self._ticket(principal, str(body.ticket_id), "ticket:read")
            project_id = ticket.project_id
        elif body.project_id is not None:
            project_id = body.project_id
            await self._project(principal, project_id, "project:read")
        else:
            raise invalid("project_id", "ticket_id or project_id is needed")
        try:
            repository = await self._mirror.require_ready(project_id)
            base = await self._mirrors.find_base(project_id, repository.default_branch, repository.default_branch)
            head = await self._mirrors.resolve(project_id, mirror_rules.head_ref(body.branch_name))
            if base is None or head is None:
                raise BRANCH_NOT_FOUND()
            ahead, behind = await self._mirrors.distance(project_id, base, head)
            conflicts = await self._merging.conflicts(project_id, base, head)
        except AppError as error:
            return StatusOut(success=False, error=_said(error))
        return StatusOut(success=True, ahead_by=ahead, behind_by=behind, has_conflicts=bool(conflicts))

    async def push(self, principal: Principal, body: PushBranch) -> PushedOut:
        """Pushes a branch of ours to the project's own repository, never by force."""
        repository = await self._project(principal, body.project_id, "project:write")
        sha = await self._mirrors.resolve(body.project_id, mirror_rules.head_ref(body.branch_name))
        if sha is None:
            raise BRANCH_NOT_FOUND()
        await self._mirrors.push(body.project_id, self._mirror.source(repository.url), body.branch_name)
        return PushedOut(success=True, branch_name=body.branch_name, sha=sha)

    async def _project(self, principal: Principal, project_id: str, permission: str) -> Repository:
        async with self._db.reader() as tx:
            repository = await self._mirror.find(tx, project_id)
        if repository is None:
            raise PROJECT_NOT_FOUND()
        principal.require(permission, repository.organization_id, PROJECT_NOT_FOUND)
        return repository

    async def _ticket(self, principal: Principal, ticket_id: str, permission: str) -> ReplicaTicket:
        ticket = await self._tickets.get(ticket_id)
        principal.require(permission, ticket.organization_id, TICKET_NOT_FOUND)
        return ticket

    async def _ticket_branch(self, ticket: ReplicaTicket, name: str | None) -> TicketBranch | None:
        async with self._db.reader() as tx:
            branch = await store.find(tx, ticket.ticket_id)
        return branch if branch is not None and name in (None, branch.branch) else None


def _said(refusal: AppError) -> str:
    """What the answer says of a refusal. A dependency that is away is none and goes on as 503 or 504."""
    if refusal.kind in (Kind.UNAVAILABLE, Kind.DEADLINE):
        raise refusal
    return refusal.detail
