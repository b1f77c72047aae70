"""The gRPC servicer: the queue, reads for other services, snapshots for their replicas."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from omoios.workflow.v1 import workflow_pb2 as pb
from omoios.workflow.v1 import workflow_pb2_grpc
from servicekit.errors import invalid
from workflow_service.queue.claims_service import AttemptAnswer, AttemptRef, Claimed, ClaimService
from workflow_service.specs.lookup_service import LookupService

MAX_BATCH = 1000
DEFAULT_PAGE = 500
# Characters; the end of an error says most.
MAX_FEEDBACK = 10_000

_STATES = {
    "held": pb.ATTEMPT_STATE_HELD,
    "lost": pb.ATTEMPT_STATE_LOST,
    "cancelled": pb.ATTEMPT_STATE_CANCELLED,
    "ended": pb.ATTEMPT_STATE_ENDED,
}


class WorkflowServicer(workflow_pb2_grpc.WorkflowServiceServicer):
    """`omoios.workflow.v1.WorkflowService`."""

    def __init__(self, claims: ClaimService, lookup: LookupService) -> None:
        self._claims = claims
        self._lookup = lookup

    async def ClaimTasks(self, request: pb.ClaimTasksRequest, context: Any) -> pb.ClaimTasksResponse:
        claimed = await self._claims.claim(
            organization_ids=request.organization_ids,
            agent_id=request.agent_id,
            maximum=request.max,
            sandbox_ids=request.sandbox_ids,
            capabilities=request.capabilities,
            lease_s=request.lease_s,
            project_ids=request.project_ids,
        )
        return pb.ClaimTasksResponse(tasks=[_claimed(task) for task in claimed])

    async def StartTasks(self, request: pb.StartTasksRequest, context: Any) -> pb.StartTasksResponse:
        answers = await self._claims.start(_refs(request.attempts))
        return pb.StartTasksResponse(statuses=_statuses(answers))

    async def HeartbeatTasks(self, request: pb.HeartbeatTasksRequest, context: Any) -> pb.HeartbeatTasksResponse:
        answers = await self._claims.heartbeat(_refs(request.attempts), request.lease_s)
        return pb.HeartbeatTasksResponse(statuses=_statuses(answers))

    async def CompleteTask(self, request: pb.CompleteTaskRequest, context: Any) -> pb.CompleteTaskResponse:
        ref = AttemptRef(request.task_id, request.attempt, request.sandbox_id)
        result = _object("result_json", request.result_json)
        status, unblocked = await self._claims.complete(ref, result, request.branch, request.head_sha)
        return pb.CompleteTaskResponse(status=status, unblocked_task_ids=unblocked)

    async def FailTask(self, request: pb.FailTaskRequest, context: Any) -> pb.FailTaskResponse:
        ref = AttemptRef(request.task_id, request.attempt, request.sandbox_id)
        result = _object("result_json", request.result_json)
        answer = await self._claims.fail(ref, request.error, result, request.permanent)
        return pb.FailTaskResponse(status=answer.status, will_retry=answer.will_retry, retry_at=_time(answer.retry_at))

    async def ReleaseTasks(self, request: pb.ReleaseTasksRequest, context: Any) -> pb.ReleaseTasksResponse:
        answers = await self._claims.release(_refs(request.attempts), request.reason, start_failed=request.start_failed)
        return pb.ReleaseTasksResponse(statuses=_statuses(answers))

    async def CancelTasks(self, request: pb.CancelTasksRequest, context: Any) -> pb.CancelTasksResponse:
        _bounded("task_ids", request.task_ids)
        cancelled = await self._lookup.cancel_tasks(request.task_ids, request.organization_id, request.reason)
        return pb.CancelTasksResponse(cancelled_task_ids=cancelled)

    async def BatchGetTasks(self, request: pb.BatchGetTasksRequest, context: Any) -> pb.BatchGetTasksResponse:
        _bounded("ids", request.ids)
        return pb.BatchGetTasksResponse(tasks=[_task(row) for row in await self._lookup.tasks(request.ids)])

    async def BatchGetTickets(self, request: pb.BatchGetTicketsRequest, context: Any) -> pb.BatchGetTicketsResponse:
        _bounded("ids", request.ids)
        return pb.BatchGetTicketsResponse(tickets=[_ticket(row) for row in await self._lookup.tickets(request.ids)])

    async def BatchGetProjects(self, request: pb.BatchGetProjectsRequest, context: Any) -> pb.BatchGetProjectsResponse:
        _bounded("ids", request.ids)
        return pb.BatchGetProjectsResponse(projects=[_project(row) for row in await self._lookup.projects(request.ids)])

    async def GetWorkSummary(self, request: pb.GetWorkSummaryRequest, context: Any) -> pb.GetWorkSummaryResponse:
        _bounded("organization_ids", request.organization_ids)
        tasks, tickets, specs = await self._lookup.summary(request.organization_ids)
        return pb.GetWorkSummaryResponse(tasks=_counts(tasks), tickets=_counts(tickets), specs=_counts(specs))

    async def ResolveResources(self, request: pb.ResolveResourcesRequest, context: Any) -> pb.ResolveResourcesResponse:
        _bounded("references", request.references)
        pairs = [(item.resource_type, item.resource_id) for item in request.references]
        found = await self._lookup.resolve(pairs)
        return pb.ResolveResourcesResponse(
            resources=[
                pb.ResolvedResource(
                    resource_type=kind, resource_id=one, organization_id=organization, project_id=project
                )
                for kind, one, organization, project in found
            ]
        )

    async def ListProjectSnapshot(
        self, request: pb.ListProjectSnapshotRequest, context: Any
    ) -> pb.ListProjectSnapshotResponse:
        rows = await self._lookup.project_snapshot(request.page_token, _page(request.page_size))
        return pb.ListProjectSnapshotResponse(
            projects=[_project(row) for row in rows], next_page_token=_next(rows, request.page_size)
        )

    async def ListTicketSnapshot(
        self, request: pb.ListTicketSnapshotRequest, context: Any
    ) -> pb.ListTicketSnapshotResponse:
        rows = await self._lookup.ticket_snapshot(request.page_token, _page(request.page_size))
        return pb.ListTicketSnapshotResponse(
            tickets=[_ticket(row) for row in rows], next_page_token=_next(rows, request.page_size)
        )

    async def ListTaskSnapshot(self, request: pb.ListTaskSnapshotRequest, context: Any) -> pb.ListTaskSnapshotResponse:
        rows = await self._lookup.task_snapshot(request.page_token, _page(request.page_size))
        return pb.ListTaskSnapshotResponse(
            tasks=[_task(row) for row in rows], next_page_token=_next(rows, request.page_size)
        )


def _bounded(name: str, items: Sequence[object]) -> None:
    if len(items) > MAX_BATCH:
        raise invalid(name, f"has at most {MAX_BATCH} items")


def _page(size: int) -> int:
    return DEFAULT_PAGE if size <= 0 else min(size, MAX_BATCH)


def _next(rows: Sequence[Any], size: int) -> str:
    """The id after which the next page begins; empty after the last page."""
    return rows[-1].id if len(rows) == _page(size) else ""


def _refs(attempts: Sequence[pb.TaskAttempt]) -> list[AttemptRef]:
    _bounded("attempts", attempts)
    return [AttemptRef(item.task_id, item.attempt, item.sandbox_id) for item in attempts]


def _statuses(answers: Sequence[AttemptAnswer]) -> list[pb.AttemptStatus]:
    return [
        pb.AttemptStatus(
            task_id=answer.task_id,
            attempt=answer.attempt,
            state=_STATES[answer.state.value],
            lease_expires_at=_time(answer.lease_expires_at),
        )
        for answer in answers
    ]


def _object(name: str, text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise invalid(name, "is not JSON") from error
    if not isinstance(value, dict):
        raise invalid(name, "must be a JSON object")
    return value


def _time(value: datetime | None) -> Timestamp | None:
    if value is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp


def _json(value: Any) -> Any:
    """A JSONB column of the raw connection comes as text."""
    return json.loads(value) if isinstance(value, str | bytes) else value


def _claimed(task: Claimed) -> pb.ClaimedTask:
    own = _json(task.context) or {}
    told = {
        "task": {
            "id": task.id,
            "type": task.task_type,
            "description": task.description,
            "priority": task.priority,
            "phase_id": task.phase_id,
        },
        **task.surroundings,
        **own,
    }
    if task.retry_count and task.error_message:
        told["revision"] = {"feedback": task.error_message[-MAX_FEEDBACK:], "iteration": task.retry_count}
    return pb.ClaimedTask(
        task_id=task.id,
        ticket_id=task.ticket_id,
        project_id=task.project_id,
        organization_id=task.organization_id,
        spec_id=task.spec_id or "",
        execution_id=task.execution_id or "",
        title=task.title or "",
        description=task.description or "",
        task_type=task.task_type,
        phase_id=task.phase_id,
        priority=task.priority,
        attempt=task.attempt,
        sandbox_id=task.sandbox_id,
        lease_expires_at=_time(task.lease_expires_at),
        timeout_s=task.timeout_seconds or 0,
        base_branch=task.base_branch,
        execution_config_json=json.dumps(_json(task.execution_config) or {}),
        context_json=json.dumps(told, default=str),
        owned_files=task.owned_files,
        has_repository=task.has_repository,
        dependency_branches=task.dependency_branches,
    )


def _task(row: Any) -> pb.Task:
    return pb.Task(
        id=row.id,
        ticket_id=row.ticket_id,
        project_id=row.project_id,
        organization_id=row.organization_id,
        spec_id=row.spec_id or "",
        title=row.title or "",
        description=row.description or "",
        task_type=row.task_type,
        phase_id=row.phase_id,
        priority=row.priority,
        status=row.status,
        attempt=row.attempt,
        sandbox_id=row.sandbox_id or "",
        assigned_agent_id=row.assigned_agent_id or "",
        version=row.version,
        created_at=_time(row.created_at),
        started_at=_time(row.started_at),
        completed_at=_time(row.completed_at),
        result_json=json.dumps(row.result) if row.result is not None else "",
        error_message=row.error_message or "",
        execution_id=row.execution_id or "",
    )


def _ticket(row: Any) -> pb.Ticket:
    return pb.Ticket(
        id=row.id,
        project_id=row.project_id,
        organization_id=row.organization_id,
        spec_id=row.spec_id or "",
        title=row.title,
        status=row.status,
        phase_id=row.phase_id,
        priority=row.priority,
        version=row.version,
        description=row.description or "",
    )


def _project(row: Any) -> pb.Project:
    return pb.Project(
        id=row.id,
        organization_id=row.organization_id,
        name=row.name,
        status=row.status,
        autonomous_execution_enabled=row.autonomous_execution_enabled,
        version=row.version,
    )


def _counts(rows: Sequence[tuple[str, str, int]]) -> list[pb.StateCount]:
    return [pb.StateCount(organization_id=one, state=state, count=count) for one, state, count in rows]
