"""Request and response models of the sandboxes room."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

MessageType = Literal["user_message", "interrupt", "guardian_nudge", "system", "agent_collaboration"]


class SandboxEventOut(BaseModel):
    """One recorded event; `sequence` is its position in the sandbox, from 1."""

    id: str
    sandbox_id: str
    event_type: str
    event_data: dict[str, Any]
    source: str
    created_at: datetime
    sequence: int


class SandboxEvents(BaseModel):
    """A page of events, newest first."""

    events: list[SandboxEventOut]
    total_count: int
    sandbox_id: str


class HeartbeatSummary(BaseModel):
    """Heartbeats are counted, not listed."""

    count: int
    first_heartbeat: datetime | None
    last_heartbeat: datetime | None


class Trajectory(BaseModel):
    """What a sandbox did, newest first, without heartbeats and search noise."""

    sandbox_id: str
    events: list[SandboxEventOut]
    heartbeat_summary: HeartbeatSummary
    total_events: int
    trajectory_events: int
    next_cursor: str | None
    prev_cursor: str | None
    has_more: bool


class SandboxTask(BaseModel):
    """The task that a sandbox works on."""

    id: str
    ticket_id: str
    phase_id: str
    task_type: str
    title: str | None
    description: str | None
    priority: str
    status: str
    sandbox_id: str
    assigned_agent_id: str | None
    created_at: datetime | None
    updated_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None


class MessageCreate(BaseModel):
    """A message for the worker in a sandbox; `interrupt` stops its current command."""

    content: Annotated[str, Field(min_length=1)]
    message_type: MessageType = "user_message"


class MessageQueued(BaseModel):
    """The message waits."""

    status: str = "queued"
    message_id: str
    sandbox_id: str


class MessageOut(BaseModel):
    """One message."""

    id: str
    content: str
    message_type: str
    timestamp: datetime
    sender_id: str


class TaskComplete(BaseModel):
    """The end of an attempt. `head_sha`: what was pushed to the attempt's branch; `permanent`: retrying cannot help."""

    task_id: str
    success: bool = True
    result: dict[str, Any] | None = None
    error_message: Annotated[str, Field(max_length=100_000)] | None = None
    head_sha: Annotated[str, Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})?$")] = ""
    permanent: bool = False


class TaskCompleted(BaseModel):
    """`task_status` is the task's status now: a failed attempt that will be retried leaves it pending.

    `unblocked_tasks`: what waits for no task any more, at most 500; work to merge lets go when it is merged.
    """

    status: str = "accepted"
    task_id: str
    new_status: str
    unblocked_tasks: list[str] = Field(default_factory=list)
    task_status: str
    will_retry: bool = False
    retry_at: datetime | None = None
    branch: str | None = None
    head_sha: str | None = None
    commits: int = 0


class SandboxHeartbeat(BaseModel):
    """What the worker says of itself."""

    status: Annotated[str, Field(max_length=50)] = "running"


class SandboxHeartbeatAck(BaseModel):
    """`state`: running, or cancelled, superseded, ended: stop. `token` comes when a new one is due."""

    sandbox_id: str
    state: Literal["running", "cancelled", "superseded", "ended"]
    messages_pending: int
    heartbeat_interval_s: float
    token: str | None = None
    expires_at: datetime | None = None


class SandboxReleased(BaseModel):
    """The task is back in the queue."""

    status: str = "released"
    task_id: str


class ReleaseRequest(BaseModel):
    """Why the worker gives the task back."""

    reason: Annotated[str, Field(min_length=1, max_length=500)] = "the runner is going away"


class UsageItem(BaseModel):
    """Tokens of one model call; the same `usage_id` twice is one usage."""

    usage_id: Annotated[str, Field(min_length=1, max_length=100)]
    provider: Annotated[str, Field(min_length=1, max_length=100)]
    model: Annotated[str, Field(min_length=1, max_length=200)]
    input_tokens: Annotated[int, Field(ge=0, lt=2**53)] = 0
    output_tokens: Annotated[int, Field(ge=0, lt=2**53)] = 0
    cache_read_tokens: Annotated[int, Field(ge=0, lt=2**53)] = 0
    cache_write_tokens: Annotated[int, Field(ge=0, lt=2**53)] = 0


class UsageReport(BaseModel):
    """Model calls of a sandbox."""

    entries: Annotated[list[UsageItem], Field(min_length=1, max_length=500)]


class UsageAccepted(BaseModel):
    """How many entries were taken."""

    status: str = "accepted"
    accepted: int


class ActivityOut(BaseModel):
    """What a sandbox has been doing."""

    sandbox_id: str
    last_work_at: datetime | None
    last_heartbeat_at: datetime | None
    heartbeat_status: str | None
    has_completed: bool
    is_alive: bool
    is_idle: bool
    is_stuck_running: bool
    idle_duration_seconds: float


class PhaseStatusOut(BaseModel):
    """How far a spec sandbox has come."""

    sandbox_id: str
    is_spec_sandbox: bool
    phases_completed: list[str]
    phases_started: list[str]
    last_phase_completed: str | None
    last_phase_completed_at: datetime | None
    next_expected_phase: str | None
    is_stuck_between_phases: bool
    stuck_duration_seconds: float
    has_execution_completed: bool
    has_execution_failed: bool


class PhaseReport(BaseModel):
    """Phases and activity of one sandbox."""

    sandbox_id: str
    phase_status: PhaseStatusOut
    activity: ActivityOut
    timestamp: datetime


class MonitoredSandbox(BaseModel):
    """One running sandbox."""

    sandbox_id: str
    activity: ActivityOut | None
    phase_status: PhaseStatusOut | None
    error: str | None = None


class MonitoringStatus(BaseModel):
    """All running sandboxes of the caller's organizations."""

    sandboxes: list[MonitoredSandbox]
    active_count: int
    spec_sandbox_count: int
    stuck_count: int
    timestamp: datetime


class SandboxHealth(BaseModel):
    """The sandbox API answers."""

    status: str = "ok"
    service: str = "sandbox-api"
    timestamp: datetime


class Cleared(BaseModel):
    """Sandboxes ended because their task is over."""

    cleared_count: int
    message: str
