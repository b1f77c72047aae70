"""Branches of attempts at tasks, for agents, by RPC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from servicekit.db import Database
from servicekit.errors import invalid
from vcs_service.commits.service import CommitService
from vcs_service.errors import (
    ATTEMPT_SUPERSEDED,
    BRANCH_NOT_FOUND,
    DEPENDENCIES_CONFLICT,
    HEAD_MISMATCH,
    REPOSITORY_NOT_FOUND,
)
from vcs_service.merging import rules as merging_rules
from vcs_service.merging.service import MergingService
from vcs_service.mirror import attempts_service as attempts
from vcs_service.mirror import rules as mirror_rules
from vcs_service.mirror.service import MirrorService
from vcs_service.mirror.tables import Branch, Repository

# A spec that starts sees what was pushed a moment ago; longer than this it goes on with what the mirror holds.
REFRESH_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class BranchStart:
    """A branch wanted for one attempt at a task. `base_branch` empty: the project's default branch.

    `dependency_branches`: those besides `base_branch` that hold work this one depends on.
    """

    project_id: str
    task_id: str
    ticket_id: str
    attempt: int
    base_branch: str
    sandbox_id: str
    spec_id: str
    agent_id: str
    dependency_branches: Sequence[str] = ()


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
    """Use cases of attempts' branches."""

    def __init__(self, db: Database, mirror: MirrorService, merging: MergingService, commits: CommitService) -> None:
        self._db = db
        self._mirror = mirror
        self._merging = merging
        self._mirrors = mirror.mirrors
        self._commits = commits

    async def start_attempt(self, start: BranchStart) -> Branch:
        """The branch of an attempt, made from its base; asked for again it is the same.

        Raises `vcs.attempt_superseded` when a later attempt has a branch, `vcs.dependencies_conflict` when the work it
        depends on cannot be merged into its base, and what `require_ready` raises.
        """
        if start.attempt < 1 or not (start.task_id and start.sandbox_id):
            raise invalid("attempt", "task_id, sandbox_id and an attempt from 1 are needed")
        if start.base_branch and (problem := mirror_rules.branch_problem(start.base_branch)):
            raise invalid("base_branch", problem, start.base_branch)
        repository = await self._mirror.require_ready(start.project_id)
        base_branch = start.base_branch or repository.default_branch
        base_sha = await self.base(repository, base_branch)
        for dependency in start.dependency_branches:
            base_sha = await self._merge_dependency(start, base_branch, dependency) or base_sha
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

    async def head_to_merge(self, project_id: str, task_id: str, attempt: int, head_sha: str) -> str:
        """Where the work of an attempt ended; its branch is finished now if its worker did not have that done.

        Empty when it has no commits. Raises what `finish_attempt` raises, but for a branch that is not known here.
        """
        async with self._db.reader() as tx:
            branch, _ = await attempts.find(tx, task_id, attempt)
        if branch is None or branch.project_id != project_id:
            return head_sha
        if branch.state != "started":
            return head_sha or branch.head_sha or ""
        return (await self.finish_attempt(project_id, task_id, attempt, head_sha)).head_sha

    async def _merge_dependency(self, start: BranchStart, base_branch: str, dependency: str) -> str | None:
        """Where the base stands after it got the work of a branch; None where that branch does not exist."""
        for name in (base_branch, dependency):
            problem = mirror_rules.branch_problem(name) or mirror_rules.target_problem(name)
            if problem is not None:
                raise invalid("dependency_branches", problem, name)
        head = await self._mirrors.resolve(start.project_id, mirror_rules.head_ref(dependency))
        if head is None:
            return None
        item = {"branch": dependency, "task_id": start.task_id, "ticket_id": start.ticket_id}
        message = merging_rules.message_of(item, base_branch)
        merged = await self._merging.merge_now(start.project_id, base_branch, [(head, message)])
        if merged.outcome == "conflicted":
            places = ", ".join(merged.files)[:500]
            raise DEPENDENCIES_CONFLICT(f"{dependency}, needed by this work, conflicts with {base_branch} in {places}.")
        return merged.sha

    async def base(self, repository: Repository, base_branch: str) -> str:
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
        if base_branch.startswith(mirror_rules.TARGET_PREFIXES):
            await self._mirrors.set_ref(project_id, ours, sha, mirror_rules.ZERO_SHA)
            sha = await self._mirrors.resolve(project_id, ours) or sha
        return sha
