"""Requests and answers of `/commits`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints

from vcs_service.commits.tables import TicketCommit

Sha = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{7,64}$", to_lower=True)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]


class FileChange(BaseModel):
    """What a commit did to one file."""

    status: Literal["added", "modified", "removed", "renamed"] = "modified"
    additions: Count = 0
    deletions: Count = 0
    patch: Annotated[str, Field(max_length=262_144)] | None = None


class LinkCommit(BaseModel):
    """A commit to link to a ticket."""

    commit_sha: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$", to_lower=True)]
    agent_id: Annotated[str, Field(min_length=1, max_length=100)]
    commit_message: Annotated[str, Field(max_length=10_000)] | None = None
    files_changed: Count | None = None
    insertions: Count | None = None
    deletions: Count | None = None
    files_list: Annotated[dict[str, FileChange], Field(max_length=2_000)] | None = None
    link_method: Annotated[str, Field(max_length=50)] | None = "manual"


class CommitOut(BaseModel):
    """A commit of a ticket."""

    id: str
    commit_sha: str
    commit_message: str
    commit_timestamp: datetime
    agent_id: str | None
    ticket_id: str
    files_changed: int | None
    insertions: int | None
    deletions: int | None
    files_list: dict[str, Any] | None
    linked_at: datetime
    link_method: str | None

    @classmethod
    def of(cls, row: TicketCommit) -> CommitOut:
        """From the row."""
        return cls(**{name: getattr(row, name) for name in cls.model_fields})


class CommitsOut(BaseModel):
    """A page of commits, newest first; `total` is how many there are."""

    commits: list[CommitOut]
    total: int


class FileDiff(BaseModel):
    """One file of a commit's diff."""

    path: str
    additions: int
    deletions: int
    changes: int
    status: str
    patch: str | None


class DiffOut(BaseModel):
    """What a commit changed."""

    commit_sha: str
    files: list[FileDiff]
