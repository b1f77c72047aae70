"""Branches of tickets, by HTTP: for people, and for the sandboxes that work on the ticket."""

from __future__ import annotations

from servicekit.auth import Principal, PrincipalType
from servicekit.db import Database
from servicekit.errors import AppError, Kind, invalid
from vcs_service.branch_workflow import rules
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
from vcs_service.branch_workflow.service import REFRESH_TIMEOUT_S, BranchService
from vcs_service.commits.service import CommitService
from vcs_service.errors import (
    ATTEMPT_SUPERSEDED,
    BRANCH_NOT_FOUND,
    PROJECT_NOT_FOUND,
    REPOSITORY_NOT_FOUND,
    TICKET_NOT_FOUND,
)
from vcs_service.merging.service import MergingService
from vcs_service.mirror import attempts_service as attempts
from vcs_service.mirror import rules as mirror_rules
from vcs_service.mirror import ticket_branches_service as ticket_branches
from vcs_service.mirror.service import MirrorService
from vcs_service.mirror.tables import Branch, Repository, TicketBranch
from vcs_service.replica import ReplicaTicket, Tickets


class TicketBranchService:
    """Use cases of `/branch-workflow`."""

    def __init__(
        self,
        db: Database,
        mirror: MirrorService,
        merging: MergingService,
        commits: CommitService,
        branches: BranchService,
        tickets: Tickets,
    ) -> None:
        self._db = db
        self._mirror = mirror
        self._mirrors = mirror.mirrors
        self._merging = merging
        self._commits = commits
        self._branches = branches
        self._tickets = tickets

    async def start(self, principal: Principal, body: StartBranch) -> StartedOut:
        """The branch of a ticket; asked for again it is the same.

        It is made from what the queue of merges brought into `ticket/<id>`, else from the default branch as it is now.

        A branch that was merged is open again, and begins anew where it was deleted.
        """
        ticket, attempt = await self._ticket(principal, str(body.ticket_id), "ticket:write")
        try:
            _require_live(attempt)
            async with self._db.reader() as tx:
                branch = await ticket_branches.find(tx, ticket.ticket_id)
            sha = await self._head(ticket, branch) if branch is not None else None
            if branch is None or sha is None or branch.state == ticket_branches.MERGED:
                branch = await self._begin(ticket, body)
                ref = mirror_rules.head_ref(branch.branch)
                await self._mirrors.set_ref(ticket.project_id, ref, branch.base_sha, mirror_rules.ZERO_SHA)
                sha = await self._head(ticket, branch)
        except AppError as error:
            return StartedOut(success=False, error=_said(error))
        return StartedOut(success=True, branch_name=branch.branch, sha=sha)

    async def finish(self, principal: Principal, body: FinishBranch) -> FinishedOut:
        """Records that the work on a ticket's branch is done and links its commits to the ticket.

        The branch of an attempt at one of the ticket's tasks is finished when that task is completed: named here, it
        answers what it holds.
        """
        ticket, attempt = await self._ticket(principal, str(body.ticket_id), "ticket:write")
        try:
            _require_live(attempt)
            head, base, branch = await self._named(ticket, body.branch_name)
            commits = await self._commits.between(ticket.project_id, base, head)
        except AppError as error:
            return FinishedOut(success=False, error=_said(error))
        finished = FinishedOut(success=True, head_sha=head, commits=len(commits))
        if branch is None:
            return finished
        async with self._db.uow() as tx:
            locked = await ticket_branches.find(tx, ticket.ticket_id, lock=True)
            if locked is not None and locked.state != ticket_branches.MERGED:
                await ticket_branches.finish(tx, ticket.ticket_id, head)
            await self._commits.link_ticket_branch(tx, branch, commits, agent_id=principal.id)
            return tx.result(finished)

    async def merge(self, principal: Principal, body: MergeBranch) -> MergedOut:
        """Merges a ticket's work into a branch of ours (`omoios/<default branch>` unless another is named).

        That is what the queue of merges brought into `ticket/<id>`, then the ticket's own branch; either may be absent.

        `squash` leaves one commit with one parent, `merge` a merge commit; rebasing is refused. A merged branch is
        deleted unless the caller keeps it or somebody pushed to it meanwhile.
        """
        ticket, _ = await self._ticket(principal, str(body.ticket_id), "ticket:write")
        if body.merge_method == "rebase":
            return MergedOut(success=False, error="Merge by `merge` or `squash`; `rebase` is not offered.")
        try:
            async with self._db.reader() as tx:
                branch = await ticket_branches.find(tx, ticket.ticket_id)
            repository = await self._mirror.require_ready(ticket.project_id)
            target = body.target_branch or f"{mirror_rules.SPEC_PREFIX}{repository.default_branch}"
            heads = {}
            if (queued := await self._queued(ticket, repository)) is not None:
                heads[mirror_rules.TICKET_PREFIX + ticket.ticket_id] = queued
            head = await self._head(ticket, branch) if branch is not None else None
            if branch is not None and head is not None:
                heads[branch.branch] = head
            done = branch.merge_sha if branch is not None else None
            if not heads and done and await self._holds(ticket, target, done):
                return MergedOut(success=True, merge_sha=done, target_branch=target)
            if not heads:
                raise BRANCH_NOT_FOUND()
            await self._branches.base(repository, target)
            method = body.merge_method
            merged = await self._merging.merge_now(
                ticket.project_id,
                target,
                [
                    (one, rules.merge_message(ticket.ticket_id, ticket.title, name, method))
                    for name, one in heads.items()
                ],
                squash=method == "squash",
            )
            commits = (
                await self._commits.between(ticket.project_id, branch.base_sha, head)
                if branch is not None and head is not None
                else []
            )
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
        answer = MergedOut(success=True, merge_sha=merged.sha, target_branch=target)
        if branch is not None and head is not None:
            async with self._db.uow() as tx:
                await ticket_branches.merged(tx, ticket.ticket_id, head, merged.sha)
                await self._commits.link_ticket_branch(tx, branch, commits, agent_id=principal.id)
                tx.result(answer)
            if body.delete_branch_after:
                await self._mirrors.delete_ref(ticket.project_id, mirror_rules.head_ref(branch.branch), head)
        return answer

    async def status(self, principal: Principal, body: BranchStatus) -> StatusOut:
        """How a branch stands to the default branch, and whether merging it there would conflict."""
        if body.ticket_id is not None:
            ticket, _ = await self._ticket(principal, str(body.ticket_id), "ticket:read")
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

    async def _head(self, ticket: ReplicaTicket, branch: TicketBranch) -> str | None:
        return await self._mirrors.resolve(ticket.project_id, mirror_rules.head_ref(branch.branch))

    async def _queued(self, ticket: ReplicaTicket, repository: Repository) -> str | None:
        """Where `ticket/<id>` stands, into which the queue merges; None where it holds nothing of its own."""
        project_id, default = ticket.project_id, repository.default_branch
        head = await self._mirrors.resolve(project_id, mirror_rules.ticket_ref(ticket.ticket_id))
        base = await self._mirrors.resolve(project_id, mirror_rules.UPSTREAM + default)
        if head is None or base is None or await self._mirrors.is_ancestor(project_id, head, base):
            return None
        return head

    async def _holds(self, ticket: ReplicaTicket, target: str, commit: str) -> bool:
        """Whether a branch of ours exists and contains a commit."""
        stands = await self._mirrors.resolve(ticket.project_id, mirror_rules.head_ref(target))
        return stands is not None and await self._mirrors.is_ancestor(ticket.project_id, commit, stands)

    async def _begin(self, ticket: ReplicaTicket, body: StartBranch) -> TicketBranch:
        """The row of a branch whose ref is to be made: new, merged and begun anew, or left so by a crash."""
        repository = await self._mirror.require_ready(ticket.project_id)
        await self._mirror.refresh(repository, timeout_s=REFRESH_TIMEOUT_S)
        base = await self._queued(ticket, repository) or await self._mirrors.find_base(
            ticket.project_id, repository.default_branch, repository.default_branch
        )
        if base is None:
            raise REPOSITORY_NOT_FOUND("The repository has no branch to start from.")
        async with self._db.uow() as tx:
            branch = await ticket_branches.open_branch(
                tx,
                ticket_id=ticket.ticket_id,
                project_id=ticket.project_id,
                organization_id=ticket.organization_id,
                branch=rules.branch_name(ticket.ticket_id, body.ticket_title, body.ticket_type, body.priority),
                base_sha=base,
            )
            if branch.state == ticket_branches.MERGED:
                branch = await ticket_branches.reopen(tx, ticket.ticket_id, base)
        return branch

    async def _named(self, ticket: ReplicaTicket, name: str) -> tuple[str, str, TicketBranch | None]:
        """(head, base, row) of the ticket's branch of that name; without a row where it is an attempt's branch."""
        async with self._db.reader() as tx:
            branch = await ticket_branches.find(tx, ticket.ticket_id)
            attempt = await attempts.find_named(tx, ticket.ticket_id, name)
        if branch is not None and branch.branch == name:
            base, row = branch.base_sha, branch
        elif attempt is not None:
            base, row = attempt.base_sha, None
        else:
            raise BRANCH_NOT_FOUND()
        head = await self._mirrors.resolve(ticket.project_id, mirror_rules.head_ref(name))
        if head is None:
            raise BRANCH_NOT_FOUND()
        return head, base, row

    async def _project(self, principal: Principal, project_id: str, permission: str) -> Repository:
        async with self._db.reader() as tx:
            repository = await self._mirror.find(tx, project_id)
        if repository is None:
            raise PROJECT_NOT_FOUND()
        principal.require(permission, repository.organization_id, PROJECT_NOT_FOUND)
        if principal.type is PrincipalType.SANDBOX and principal.claims.get("project") != project_id:
            raise PROJECT_NOT_FOUND()
        return repository

    async def _ticket(
        self, principal: Principal, ticket_id: str, permission: str
    ) -> tuple[ReplicaTicket, tuple[Branch, bool] | None]:
        """(the ticket, for a sandbox its attempt at a task of it and whether that was superseded)."""
        ticket = await self._tickets.get(ticket_id)
        principal.require(permission, ticket.organization_id, TICKET_NOT_FOUND)
        if principal.type is not PrincipalType.SANDBOX:
            return ticket, None
        async with self._db.reader() as tx:
            attempt, superseded = await attempts.find(
                tx, str(principal.claims["task"]), int(principal.claims["attempt"])
            )
        if attempt is None or attempt.ticket_id != ticket_id:
            raise TICKET_NOT_FOUND()
        return ticket, (attempt, superseded)


def _require_live(attempt: tuple[Branch, bool] | None) -> None:
    if attempt is not None and attempt[1]:
        raise ATTEMPT_SUPERSEDED()


def _said(refusal: AppError) -> str:
    """What the answer says of a refusal. A dependency that is away is none and goes on as 503 or 504."""
    if refusal.kind in (Kind.UNAVAILABLE, Kind.DEADLINE):
        raise refusal
    return refusal.detail
