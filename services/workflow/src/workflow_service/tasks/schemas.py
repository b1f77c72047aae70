"""What the task operations take and answer."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
Text = Annotated[str, StringConstraints(max_length=100_000)]
Short = Annotated[str, StringConstraints(max_length=500)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Command = Annotated[str, StringConstraints(min_length=1, max_length=100_000)]


class Dependencies(BaseModel):
    """Ids of tasks that come first."""

    depends_on: list[Id] = Field(default_factory=list, max_length=500)


class ExecutionConfig(BaseModel):
    """How a task is worked on. `commands`: for the `command` engine."""

    require_spec_skill: bool = False
    selected_skill: Short | None = None
    force_execute: bool = False
    engine: Annotated[str, StringConstraints(pattern=r"^(command|cli|model)$")] | None = None
    commands: list[Command] = Field(default_factory=list, max_length=100)
    files: list[Short] = Field(default_factory=list, max_length=1000)
    env: dict[str, Text] = Field(default_factory=dict)


class TaskCreate(BaseModel):
    """A new task of a ticket."""

    ticket_id: str
    title: Title
    description: Text
    task_type: Annotated[str, StringConstraints(min_length=1, max_length=100)] = "implementation"
    priority: str = "MEDIUM"
    phase_id: str = "PHASE_IMPLEMENTATION"
    dependencies: Dependencies | None = None
    execution_config: ExecutionConfig | None = None
    required_capabilities: list[Short] = Field(default_factory=list, max_length=50)
    timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] | None = None
    max_retries: Annotated[int, Field(ge=0, le=20)] = 3


class TaskPatch(BaseModel):
    """Changes; null or absent means unchanged. `status`: cancelled, failed, or pending after an end."""

    title: Title | None = None
    description: Text | None = None
    priority: str | None = None
    status: str | None = None


class TaskListItem(BaseModel):
    """A task in a list."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    ticket_id: str
    project_id: str
    phase_id: str
    task_type: str
    title: str | None
    description: str | None
    priority: str
    status: str
    sandbox_id: str | None
    assigned_agent_id: str | None
    merge_state: str
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None


class TaskOut(TaskListItem):
    """One task. `attempt` counts claims; `merge_state`: none, pending, merged, conflicted or failed."""

    spec_id: str | None
    execution_id: str | None
    conversation_id: str | None
    result: dict[str, Any] | None
    error_message: str | None
    dependencies: Dependencies | None
    execution_config: dict[str, Any] | None
    required_capabilities: list[str]
    timeout_seconds: int | None
    retry_count: int
    max_retries: int
    attempt: int
    branch: str | None
    head_sha: str | None
    resolves_task_id: str | None
    resolution_task_id: str | None
    score: float
    version: int
    completed_at: datetime | None


class BlockedTask(BaseModel):
    """A task that waits."""

    id: str
    description: str | None
    status: str


class TaskDependencies(BaseModel):
    """What a task depends on."""

    task_id: str
    depends_on: list[str]
    dependencies_complete: bool


class TaskDependenciesFull(TaskDependencies):
    """What a task depends on, and what waits for it (the first 500)."""

    blocked_tasks: list[BlockedTask]


class CircularCheck(BaseModel):
    """Whether these dependencies would close a cycle, and which."""

    has_circular_dependency: bool
    cycle: list[str] | None


class CancelBody(BaseModel):
    """Why."""

    reason: Annotated[str, StringConstraints(max_length=1000)] = "cancelled_by_request"


class FailBody(BaseModel):
    """Why."""

    reason: Annotated[str, StringConstraints(max_length=10_000)] = "marked_failed_by_user"


class Cancelled(BaseModel):
    """The task was cancelled."""

    task_id: str
    cancelled: bool
    reason: str


class Failed(BaseModel):
    """The task was failed."""

    task_id: str
    status: str
    reason: str
    old_status: str


class Retried(BaseModel):
    """The task is queued again."""

    task_id: str
    status: str
    attempt: int


class TimeoutBody(BaseModel):
    """Seconds that one attempt may run."""

    timeout_seconds: Annotated[int, Field(ge=1, le=86_400)]


class TimeoutSet(BaseModel):
    """The timeout that holds now."""

    task_id: str
    timeout_seconds: int
    status: str


class TimeoutStatus(BaseModel):
    """How a task stands against its timeout. Times in seconds."""

    exists: bool
    task_id: str
    status: str
    timeout_seconds: int | None
    started_at: datetime | None
    elapsed_seconds: float
    elapsed_time: float
    time_remaining: float | None
    is_timed_out: bool
    can_cancel: bool


class TimedTask(BaseModel):
    """A task that runs. Times in seconds."""

    id: str
    ticket_id: str
    phase_id: str
    task_type: str
    description: str | None
    priority: str
    status: str
    assigned_agent_id: str | None
    timeout_seconds: int | None
    started_at: datetime | None
    elapsed_time: float | None
    time_remaining: float | None


class CleanedUp(BaseModel):
    """What the clean-up found and ended."""

    cleaned_count: int
    total_timed_out: int


class ConversationBody(BaseModel):
    """Where the agent's conversation is kept; an empty text leaves what is there."""

    conversation_id: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    sandbox_id: Annotated[str, StringConstraints(max_length=255)] = ""
    persistence_dir: Short = ""


class ConversationRegistered(BaseModel):
    """The conversation is known."""

    success: bool
    task_id: str
    conversation_id: str


class ReasonOut(BaseModel):
    """One reason. `tasks`: ids that it waits for."""

    code: str
    detail: str
    tasks: list[str]


class ReadinessOut(BaseModel):
    """Why a task does not run; `ready` when the next claim may take it."""

    task_id: str
    status: str
    ready: bool
    message: str
    reasons: list[ReasonOut]
