"""HTTP edge of the sandboxes room; recording events is the ingest room's."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request

from agents_service.errors import (
    ATTEMPT_SUPERSEDED,
    CURSOR_INVALID,
    HEAD_MISMATCH,
    MESSAGE_QUEUE_FULL,
    SANDBOX_ENDED,
    SANDBOX_NOT_FOUND,
    TASK_NOT_FOUND,
)
from agents_service.sandboxes.completion_service import AttemptService
from agents_service.sandboxes.messages_service import MessageService
from agents_service.sandboxes.reading_service import SandboxReading
from agents_service.sandboxes.schemas import (
    Cleared,
    MessageCreate,
    MessageOut,
    MessageQueued,
    MonitoringStatus,
    PhaseReport,
    ReleaseRequest,
    SandboxEvents,
    SandboxHealth,
    SandboxHeartbeat,
    SandboxHeartbeatAck,
    SandboxReleased,
    SandboxTask,
    TaskComplete,
    TaskCompleted,
    Trajectory,
    UsageAccepted,
    UsageReport,
)
from agents_service.sandboxes.service import SandboxService
from servicekit.auth import CurrentUser
from servicekit.clock import utc_now
from servicekit.http.problems import problems

_ATTEMPT = problems(SANDBOX_NOT_FOUND, ATTEMPT_SUPERSEDED, SANDBOX_ENDED)
_COMPLETION = problems(SANDBOX_NOT_FOUND, TASK_NOT_FOUND, ATTEMPT_SUPERSEDED, SANDBOX_ENDED, HEAD_MISMATCH)


def router(
    sandboxes: SandboxService, reading: SandboxReading, messages: MessageService, attempts: AttemptService
) -> APIRouter:
    """The routes of the room."""
    routes = APIRouter(prefix="/api/v1/sandboxes", tags=["sandboxes"])

    @routes.get("/health")
    async def health() -> SandboxHealth:
        """The sandbox API answers."""
        return SandboxHealth(timestamp=utc_now())

    @routes.get("/monitoring/status")
    async def monitoring_status(user: CurrentUser) -> MonitoringStatus:
        """All running sandboxes of the caller's organizations."""
        return await reading.monitoring(user)

    @routes.post("/admin/clear-tracked-sandboxes")
    async def clear_tracked_sandboxes(user: CurrentUser) -> Cleared:
        """End sandboxes whose task has gone on without them, now instead of at the next sweep."""
        count = await sandboxes.sweep()
        return Cleared(cleared_count=count, message=f"Cleared {count} tracked sandboxes")

    @routes.get("/{sandbox_id}/events", responses=problems(SANDBOX_NOT_FOUND))
    async def list_events(
        user: CurrentUser,
        sandbox_id: str,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
        offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
        event_type: Annotated[str | None, Query(max_length=100)] = None,
    ) -> SandboxEvents:
        """Recorded events, newest first."""
        return await reading.list_events(user, sandbox_id, limit, offset, event_type)

    @routes.get("/{sandbox_id}/trajectory", responses=problems(SANDBOX_NOT_FOUND, CURSOR_INVALID))
    async def get_trajectory(
        user: CurrentUser,
        sandbox_id: str,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: Annotated[str | None, Query(max_length=100)] = None,
        direction: Literal["older", "newer"] = "older",
    ) -> Trajectory:
        """What the sandbox did, without heartbeats and search noise."""
        return await reading.trajectory(user, sandbox_id, limit, cursor, direction)

    @routes.get("/{sandbox_id}/task", responses=problems(SANDBOX_NOT_FOUND, TASK_NOT_FOUND))
    async def get_task(user: CurrentUser, sandbox_id: str) -> SandboxTask:
        """The task that the sandbox works on."""
        return await reading.task(user, sandbox_id)

    @routes.get("/{sandbox_id}/phase-status", responses=problems(SANDBOX_NOT_FOUND))
    async def get_phase_status(user: CurrentUser, sandbox_id: str) -> PhaseReport:
        """Phases and activity of the sandbox."""
        return await reading.phases(user, sandbox_id)

    @routes.post("/{sandbox_id}/messages", responses=problems(SANDBOX_NOT_FOUND, SANDBOX_ENDED, MESSAGE_QUEUE_FULL))
    async def send_message(user: CurrentUser, sandbox_id: str, body: MessageCreate) -> MessageQueued:
        """Queue a message for the worker."""
        return await messages.post(user, sandbox_id, body)

    @routes.get("/{sandbox_id}/messages", responses=problems(SANDBOX_NOT_FOUND))
    async def read_messages(
        user: CurrentUser,
        sandbox_id: str,
        request: Request,
        wait_s: Annotated[float, Query(ge=0, le=25)] = 0.0,
        after: Annotated[str | None, Query(max_length=100)] = None,
    ) -> list[MessageOut]:
        """The waiting messages; the sandbox itself takes them, and may wait for the first one.

        With `after` (empty at first, then the id of the last message it got) they are given until it names them.
        """
        return await messages.read(user, sandbox_id, wait_s, request.is_disconnected, after)

    @routes.post("/{sandbox_id}/heartbeat", responses=problems(SANDBOX_NOT_FOUND, ATTEMPT_SUPERSEDED))
    async def heartbeat(user: CurrentUser, sandbox_id: str, body: SandboxHeartbeat) -> SandboxHeartbeatAck:
        """Renew the lease of the task and learn whether to go on."""
        return await attempts.heartbeat(user, sandbox_id)

    @routes.post("/{sandbox_id}/task-complete", responses=_COMPLETION)
    async def task_complete(user: CurrentUser, sandbox_id: str, body: TaskComplete) -> TaskCompleted:
        """Hand in the result of the attempt."""
        return await attempts.complete(user, sandbox_id, body)

    @routes.post("/{sandbox_id}/release", responses=_ATTEMPT)
    async def release(user: CurrentUser, sandbox_id: str, body: ReleaseRequest) -> SandboxReleased:
        """Give the task back to the queue."""
        return await attempts.release(user, sandbox_id, body)

    @routes.post("/{sandbox_id}/usage", responses=_ATTEMPT)
    async def report_usage(user: CurrentUser, sandbox_id: str, body: UsageReport) -> UsageAccepted:
        """Tell what model calls used."""
        return await attempts.report_usage(user, sandbox_id, body)

    return routes
