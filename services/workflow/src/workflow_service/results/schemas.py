"""What the result operations take and answer."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints

Path = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Markdown = Annotated[str, StringConstraints(max_length=110_000)]


class ReportBody(BaseModel):
    """The result of a task. The text itself is sent: sandboxes share no disk with this service."""

    task_id: str
    markdown_file_path: Path
    markdown_content: Markdown = ""
    result_type: str
    summary: Annotated[str, StringConstraints(min_length=1, max_length=10_000)]


class AgentResultOut(BaseModel):
    """The result of a task, without its text."""

    result_id: str
    agent_id: str
    task_id: str
    markdown_file_path: str
    result_type: str
    summary: str
    verification_status: str
    verified_at: datetime | None
    verified_by_validation_id: str | None
    created_at: datetime


class SubmitBody(BaseModel):
    """The result of a whole workflow, which is a ticket."""

    workflow_id: str
    markdown_file_path: Path
    markdown_content: Markdown = ""
    explanation: Annotated[str, StringConstraints(max_length=10_000)] | None = None
    evidence: list[Annotated[str, StringConstraints(max_length=10_000)]] = Field(default_factory=list, max_length=100)


class SubmitOut(BaseModel):
    """The result was kept. `validation_triggered`: whether a validator was asked for."""

    status: str
    result_id: str
    workflow_id: str
    agent_id: str
    validation_triggered: bool
    message: str
    created_at: datetime


class ValidateBody(BaseModel):
    """A validator's decision."""

    result_id: str
    validation_passed: bool
    feedback: Annotated[str, StringConstraints(min_length=1, max_length=10_000)]
    evidence: list[dict[str, Any]] = Field(default_factory=list, max_length=100)


class ValidateOut(BaseModel):
    """What the decision did: none, workflow_terminated or result_logged."""

    result_id: str
    validation_status: str
    passed: bool
    action_taken: str
    billing_recorded: bool
    message: str


class WorkflowResultOut(BaseModel):
    """The result of a workflow."""

    result_id: str
    workflow_id: str
    agent_id: str
    markdown_file_path: str
    explanation: str | None
    evidence: dict[str, Any] | None
    status: str
    validated_at: datetime | None
    validation_feedback: str | None
    created_at: datetime
