"""Peers of the agents service, standing in over real gRPC: workflow, vcs and identity."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from omoios.identity.v1 import identity_pb2, identity_pb2_grpc
from omoios.vcs.v1 import vcs_pb2, vcs_pb2_grpc
from omoios.workflow.v1 import workflow_pb2, workflow_pb2_grpc
from servicekit.auth.testing import ROLE_PERMISSIONS
from servicekit.clock import utc_now
from servicekit.errors import AppError, Kind


def _stamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(utc_now() + timedelta(seconds=seconds))
    return stamp


@dataclass
class QueuedTask:
    """A task in the queue of the stand-in, with what became of it."""

    id: str
    organization_id: str
    config: dict[str, Any] = field(default_factory=lambda: {"engine": "command", "commands": ["true"]})
    has_repository: bool = True
    attempt: int = 0
    status: str = "pending"
    sandbox_id: str = ""
    error: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    head_sha: str = ""
    timeout_s: int = 0


class Workflow(workflow_pb2_grpc.WorkflowServiceServicer):
    """A queue with attempts as fencing tokens, like the real one."""

    def __init__(self) -> None:
        self.queue: dict[str, QueuedTask] = {}
        self.released: list[tuple[str, str]] = []
        self.not_started: list[str] = []
        self.unblocks: list[str] = []
        self.claims = 0
        self.heartbeats = 0
        self.lose_on_start = False
        self.cancelled: set[str] = set()

    def add(self, task: QueuedTask) -> QueuedTask:
        self.queue[task.id] = task
        return task

    async def ClaimTasks(self, request: Any, context: Any) -> Any:
        self.claims += 1
        found = []
        for task in self.queue.values():
            if task.status == "pending" and task.organization_id in request.organization_ids:
                if len(found) >= request.max:
                    break
                task.attempt += 1
                task.status = "assigned"
                task.sandbox_id = request.sandbox_ids[len(found)]
                found.append(
                    workflow_pb2.ClaimedTask(
                        task_id=task.id,
                        ticket_id="ticket-1",
                        project_id="project-1",
                        organization_id=task.organization_id,
                        spec_id="spec-1",
                        execution_id="execution-1",
                        title=f"Title of {task.id}",
                        description="Do it.",
                        task_type="implement_feature",
                        phase_id="PHASE_IMPLEMENTATION",
                        priority="HIGH",
                        attempt=task.attempt,
                        sandbox_id=task.sandbox_id,
                        lease_expires_at=_stamp(60),
                        timeout_s=task.timeout_s,
                        execution_config_json=json.dumps(task.config),
                        context_json=json.dumps({"ticket": {"id": "ticket-1", "title": "Ticket"}}),
                        has_repository=task.has_repository,
                    )
                )
        return workflow_pb2.ClaimTasksResponse(tasks=found)

    def _state(self, attempt: Any) -> Any:
        task = self.queue.get(attempt.task_id)
        if task is None or task.attempt != attempt.attempt or task.sandbox_id != attempt.sandbox_id:
            return workflow_pb2.ATTEMPT_STATE_LOST
        if task.status == "cancelled":
            return workflow_pb2.ATTEMPT_STATE_CANCELLED
        if task.status in {"completed", "failed"}:
            return workflow_pb2.ATTEMPT_STATE_ENDED
        if task.status == "pending":
            return workflow_pb2.ATTEMPT_STATE_LOST
        return workflow_pb2.ATTEMPT_STATE_HELD

    def _statuses(self, request: Any) -> list[Any]:
        return [
            workflow_pb2.AttemptStatus(task_id=item.task_id, attempt=item.attempt, state=self._state(item))
            for item in request.attempts
        ]

    async def StartTasks(self, request: Any, context: Any) -> Any:
        if self.lose_on_start:
            for item in request.attempts:
                self.queue[item.task_id].attempt += 1
        for item in request.attempts:
            if self._state(item) == workflow_pb2.ATTEMPT_STATE_HELD:
                self.queue[item.task_id].status = "running"
        return workflow_pb2.StartTasksResponse(statuses=self._statuses(request))

    async def HeartbeatTasks(self, request: Any, context: Any) -> Any:
        self.heartbeats += 1
        return workflow_pb2.HeartbeatTasksResponse(statuses=self._statuses(request))

    async def ReleaseTasks(self, request: Any, context: Any) -> Any:
        for item in request.attempts:
            task = self.queue[item.task_id]
            if task.attempt == item.attempt and task.status in {"assigned", "running"}:
                task.status = "pending"
                self.released.append((item.task_id, request.reason))
                self.not_started += [item.task_id] if request.start_failed else []
        return workflow_pb2.ReleaseTasksResponse(statuses=self._statuses(request))

    def _hold(self, request: Any) -> QueuedTask:
        task = self.queue.get(request.task_id)
        if task is None or task.attempt != request.attempt or task.status in {"pending", "cancelled"}:
            raise AppError("workflow.attempt_superseded", "Another attempt has this task.", Kind.CONFLICT)
        return task

    async def CompleteTask(self, request: Any, context: Any) -> Any:
        task = self._hold(request)
        task.status, task.result, task.head_sha = "completed", json.loads(request.result_json), request.head_sha
        return workflow_pb2.CompleteTaskResponse(status="completed", unblocked_task_ids=self.unblocks)

    async def FailTask(self, request: Any, context: Any) -> Any:
        task = self._hold(request)
        task.status, task.error, task.result = "failed", request.error, json.loads(request.result_json)
        return workflow_pb2.FailTaskResponse(status="failed", will_retry=False)

    async def BatchGetTasks(self, request: Any, context: Any) -> Any:
        return workflow_pb2.BatchGetTasksResponse(
            tasks=[
                workflow_pb2.Task(
                    id=task.id,
                    ticket_id="ticket-1",
                    project_id="project-1",
                    organization_id=task.organization_id,
                    title=f"Title of {task.id}",
                    task_type="implement_feature",
                    phase_id="PHASE_IMPLEMENTATION",
                    priority="HIGH",
                    status=task.status,
                    attempt=task.attempt,
                    sandbox_id=task.sandbox_id,
                    created_at=_stamp(-60),
                )
                for task in self.queue.values()
                if task.id in request.ids
            ]
        )


class Vcs(vcs_pb2_grpc.VcsServiceServicer):
    """Branches, with errors on demand."""

    def __init__(self) -> None:
        self.clone_url = "http://127.0.0.1:1/git/project-1.git"
        self.base_sha = "a" * 40
        self.refuse: dict[str, str] = {}
        self.refuse_finish: set[str] = set()
        self.down = False
        self.slow_s = 0.0
        self.finished: list[tuple[str, int, str]] = []

    async def StartBranches(self, request: Any, context: Any) -> Any:
        if self.down:
            raise AppError("vcs.unavailable", "The disk is away.", Kind.UNAVAILABLE)
        if self.slow_s:
            await asyncio.sleep(self.slow_s)
        return vcs_pb2.StartBranchesResponse(
            branches=[
                vcs_pb2.StartedBranch(
                    task_id=start.task_id,
                    error_code=self.refuse.get(start.task_id, ""),
                    error_detail="Not this one." if start.task_id in self.refuse else "",
                    branch=f"omoios/{start.task_id}-{start.attempt}",
                    base_sha=self.base_sha,
                    clone_url=self.clone_url,
                )
                for start in request.starts
            ]
        )

    async def FinishBranch(self, request: Any, context: Any) -> Any:
        if request.task_id in self.refuse_finish:
            raise AppError("vcs.head_mismatch", "The branch does not stand at this commit.", Kind.CONFLICT)
        self.finished.append((request.task_id, request.attempt, request.head_sha))
        return vcs_pb2.FinishBranchResponse(
            branch=f"omoios/{request.task_id}-{request.attempt}",
            head_sha=request.head_sha,
            commits=1 if request.head_sha else 0,
        )


class Identity(identity_pb2_grpc.IdentityServiceServicer):
    """Tokens signed with the test's key."""

    def __init__(self, signing: Any) -> None:
        self.signing = signing
        self.revoked: list[tuple[str, str]] = []
        self.down = False
        self.members: dict[str, Any] = {}

    async def IssueAgentToken(self, request: Any, context: Any) -> Any:
        token = self.signing.agent(request.organization_id, request.agent_id, ttl_s=request.ttl_s)
        return identity_pb2.IssueAgentTokenResponse(token=token, expires_at=_stamp(request.ttl_s))

    async def IssueSandboxTokens(self, request: Any, context: Any) -> Any:
        if self.down:
            raise AppError("identity.unavailable", "Identity is away.", Kind.UNAVAILABLE)
        return identity_pb2.IssueSandboxTokensResponse(
            tokens=[
                identity_pb2.SandboxToken(
                    sandbox_id=item.sandbox_id,
                    token=self.signing.sandbox(
                        item.organization_id,
                        item.sandbox_id,
                        task_id=item.task_id,
                        agent_id=item.agent_id,
                        attempt=item.attempt,
                        ttl_s=request.ttl_s,
                    ),
                    expires_at=_stamp(request.ttl_s),
                )
                for item in request.subjects
            ]
        )

    async def RevokePrincipal(self, request: Any, context: Any) -> Any:
        self.revoked.append((request.principal_type, request.principal_id))
        return identity_pb2.RevokePrincipalResponse(not_before=_stamp(0))

    async def BatchGetMemberships(self, request: Any, context: Any) -> Any:
        return identity_pb2.BatchGetMembershipsResponse(
            memberships=[self.members[user_id] for user_id in request.user_ids if user_id in self.members]
        )

    def member(self, user_id: str, organization_id: str, role: str) -> None:
        """What identity knows of a user, also asked for after a refusal."""
        self.members[user_id] = identity_pb2.Membership(
            user_id=user_id,
            organization_id=organization_id,
            role=role,
            permissions=ROLE_PERMISSIONS[role],
            active=True,
            version=1,
        )
