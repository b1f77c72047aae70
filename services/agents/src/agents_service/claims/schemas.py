"""Request and response models of a claim."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field


class ClaimRequest(BaseModel):
    """`wait_s`: how long to wait for the first task. `labels` are offered beside the agent's capabilities."""

    max: Annotated[int, Field(ge=1, le=50)] = 1
    labels: Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=100)] = Field(default_factory=list)
    project_ids: Annotated[list[str], Field(max_length=100)] = Field(default_factory=list)
    wait_s: Annotated[float, Field(ge=0, le=30)] = 0.0
    isolation: Annotated[str, Field(max_length=50)] = "local"


class TaskOut(BaseModel):
    """The task to work on."""

    id: str
    ticket_id: str
    project_id: str
    organization_id: str
    spec_id: str | None
    execution_id: str | None
    title: str
    description: str
    task_type: str
    phase_id: str
    priority: str
    execution_config: dict[str, Any]
    owned_files: list[str]


class RepositoryAccess(BaseModel):
    """Where to clone from and push to; the sandbox token is the password, any user name will do."""

    clone_url: str
    branch: str
    base_sha: str


class SandboxAccess(BaseModel):
    """The sandbox and its token, bound to this attempt."""

    id: str
    token: str
    expires_at: datetime


class Limits(BaseModel):
    """Seconds that the work may take."""

    timeout_s: int


class Claim(BaseModel):
    """One attempt. `lease_s`: a heartbeat of the sandbox renews it, every `heartbeat_interval_s`."""

    task: TaskOut
    context: dict[str, Any]
    attempt: int
    repository: RepositoryAccess | None
    sandbox: SandboxAccess
    lease_s: int
    heartbeat_interval_s: float
    limits: Limits


class ClaimError(BaseModel):
    """A task that could not be started and is back in the queue."""

    task_id: str
    code: str
    detail: str


class ClaimAnswer(BaseModel):
    """What was claimed; empty when nothing became ready in time."""

    claims: list[Claim]
    errors: list[ClaimError]
