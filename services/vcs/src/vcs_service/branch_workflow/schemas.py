"""Requests and answers of `/branch-workflow`.

The answers are 200 with `success`; `repo_owner`, `repo_name` and `user_id` of older clients are accepted, not needed:
ticket and token say which repository and who.
"""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field

from vcs_service.mirror.rules import branch_problem, target_problem


def _branch(name: str) -> str:
    problem = branch_problem(name)
    if problem is not None:
        raise ValueError(problem)
    return name


def _target(name: str) -> str:
    problem = branch_problem(name) or target_problem(name)
    if problem is not None:
        raise ValueError(problem)
    return name


BranchName = Annotated[str, AfterValidator(_branch)]
Name = Annotated[str, Field(max_length=255)]


class _Addressed(BaseModel):
    repo_owner: Name | None = None
    repo_name: Name | None = None
    user_id: Name | None = None


class StartBranch(_Addressed):
    """A branch for a ticket."""

    ticket_id: UUID
    ticket_title: Annotated[str, Field(min_length=1, max_length=500)]
    ticket_type: Annotated[str, Field(max_length=50)] = "feature"
    priority: Annotated[str, Field(max_length=20)] | None = None


class FinishBranch(_Addressed):
    """The work on a ticket's branch is done."""

    ticket_id: UUID
    ticket_title: Annotated[str, Field(max_length=500)] = ""
    branch_name: BranchName
    pr_body: Annotated[str, Field(max_length=10_000)] | None = None


class MergeBranch(_Addressed):
    """Merge a ticket's branch; `pr_number` of older clients is not needed where there is no pull request."""

    ticket_id: UUID
    pr_number: int | None = None
    target_branch: Annotated[str, AfterValidator(_target)] | None = None
    delete_branch_after: bool = True
    merge_method: Literal["merge", "squash", "rebase"] = "squash"


class BranchStatus(_Addressed):
    """How a branch stands to the default branch; `project_id` where the branch is no ticket's."""

    branch_name: BranchName
    ticket_id: UUID | None = None
    project_id: Annotated[str, Field(max_length=100)] | None = None


class PushBranch(BaseModel):
    """Push a branch of ours to the project's own repository."""

    project_id: Annotated[str, Field(min_length=1, max_length=100)]
    branch_name: Annotated[str, AfterValidator(_target)]


class StartedOut(BaseModel):
    """The branch of the ticket."""

    success: bool
    branch_name: str | None = None
    sha: str | None = None
    error: str | None = None


class FinishedOut(BaseModel):
    """What the branch holds; without a pull request its fields are null."""

    success: bool
    pr_number: int | None = None
    pr_url: str | None = None
    head_sha: str | None = None
    commits: int = 0
    error: str | None = None


class MergedOut(BaseModel):
    """What came of the merge."""

    success: bool
    merge_sha: str | None = None
    target_branch: str | None = None
    has_conflicts: bool = False
    conflicting_files: list[str] = []
    error: str | None = None


class StatusOut(BaseModel):
    """Commits ahead of and behind the default branch, and whether a merge would conflict."""

    success: bool
    ahead_by: int = 0
    behind_by: int = 0
    has_conflicts: bool = False
    error: str | None = None


class PushedOut(BaseModel):
    """The branch as it now is in the project's own repository."""

    success: bool
    branch_name: str
    sha: str
