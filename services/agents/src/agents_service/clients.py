"""Typed, batch-first calls to the services that agents may call: workflow, vcs and identity."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import grpc.aio

from omoios.identity.v1 import identity_pb2, identity_pb2_grpc
from omoios.vcs.v1 import vcs_pb2, vcs_pb2_grpc
from omoios.workflow.v1 import workflow_pb2, workflow_pb2_grpc

# Starting branches of a batch may fetch from a far repository first.
START_BRANCHES_TIMEOUT_S = 30.0
FINISH_BRANCH_TIMEOUT_S = 30.0

HELD, LOST, CANCELLED, ENDED = "held", "lost", "cancelled", "ended"
_STATES = {
    workflow_pb2.ATTEMPT_STATE_HELD: HELD,
    workflow_pb2.ATTEMPT_STATE_LOST: LOST,
    workflow_pb2.ATTEMPT_STATE_CANCELLED: CANCELLED,
    workflow_pb2.ATTEMPT_STATE_ENDED: ENDED,
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a task, in its sandbox."""

    task_id: str
    attempt: int
    sandbox_id: str


@dataclass(frozen=True, slots=True)
class ClaimedTask:
    """A task that workflow handed out, with all that a sandbox needs to know of it."""

    task_id: str
    ticket_id: str
    project_id: str
    organization_id: str
    spec_id: str
    execution_id: str
    title: str
    description: str
    task_type: str
    phase_id: str
    priority: str
    attempt: int
    sandbox_id: str
    timeout_s: int
    base_branch: str
    execution_config: dict[str, Any]
    context: dict[str, Any]
    owned_files: list[str]
    has_repository: bool
    lease_expires_at: datetime | None
    dependency_branches: list[str]


@dataclass(frozen=True, slots=True)
class StartedBranch:
    """A branch for an attempt, or why there is none."""

    task_id: str
    branch: str
    base_sha: str
    clone_url: str
    error_code: str
    error_detail: str


@dataclass(frozen=True, slots=True)
class FinishedBranch:
    """What an attempt pushed."""

    branch: str
    head_sha: str
    commits: int
    files_changed: int


@dataclass(frozen=True, slots=True)
class FailedTask:
    """What became of a failed attempt."""

    status: str
    will_retry: bool
    retry_at: datetime | None


def moment(stamp: Any) -> datetime:
    """A protobuf timestamp as an aware datetime."""
    return cast("datetime", stamp.ToDatetime(tzinfo=UTC))


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text) if text else {}
    return value if isinstance(value, dict) else {}


class IdentityClient:
    """Tokens of agents and sandboxes."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = identity_pb2_grpc.IdentityServiceStub(channel)

    async def issue_agent_token(self, organization_id: str, agent_id: str, ttl_s: int) -> tuple[str, datetime]:
        """`(token, expires_at)` for an agent."""
        answer = await self._stub.IssueAgentToken(
            identity_pb2.IssueAgentTokenRequest(organization_id=organization_id, agent_id=agent_id, ttl_s=ttl_s)
        )
        return answer.token, moment(answer.expires_at)

    async def issue_sandbox_tokens(
        self, subjects: Sequence[identity_pb2.SandboxTokenSubject], ttl_s: int
    ) -> dict[str, tuple[str, datetime]]:
        """Sandbox id → `(token, expires_at)`."""
        answer = await self._stub.IssueSandboxTokens(
            identity_pb2.IssueSandboxTokensRequest(subjects=subjects, ttl_s=ttl_s)
        )
        return {token.sandbox_id: (token.token, moment(token.expires_at)) for token in answer.tokens}

    async def revoke(self, principal_type: str, principal_id: str, organization_id: str, reason: str) -> None:
        """End every token of a sandbox or an agent."""
        await self._stub.RevokePrincipal(
            identity_pb2.RevokePrincipalRequest(
                principal_type=principal_type,
                principal_id=principal_id,
                organization_id=organization_id,
                reason=reason,
            )
        )


def token_subject(
    organization_id: str, agent_id: str, task_id: str, sandbox_id: str, attempt: int, project_id: str
) -> identity_pb2.SandboxTokenSubject:
    """What a sandbox token is bound to."""
    return identity_pb2.SandboxTokenSubject(
        organization_id=organization_id,
        agent_id=agent_id,
        task_id=task_id,
        sandbox_id=sandbox_id,
        attempt=attempt,
        project_id=project_id,
    )


class VcsClient:
    """Branches of attempts."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = vcs_pb2_grpc.VcsServiceStub(channel)

    async def start_branches(self, tasks: Sequence[ClaimedTask]) -> dict[str, StartedBranch]:
        """Task id → its branch, or the error of this one."""
        answer = await self._stub.StartBranches(
            vcs_pb2.StartBranchesRequest(
                starts=[
                    vcs_pb2.BranchStart(
                        project_id=task.project_id,
                        task_id=task.task_id,
                        ticket_id=task.ticket_id,
                        attempt=task.attempt,
                        base_branch=task.base_branch,
                        sandbox_id=task.sandbox_id,
                        spec_id=task.spec_id,
                        dependency_branches=task.dependency_branches,
                    )
                    for task in tasks
                ]
            ),
            timeout=START_BRANCHES_TIMEOUT_S,
        )
        return {
            branch.task_id: StartedBranch(
                branch.task_id,
                branch.branch,
                branch.base_sha,
                branch.clone_url,
                branch.error_code,
                branch.error_detail,
            )
            for branch in answer.branches
        }

    async def finish_branch(self, project_id: str, task_id: str, attempt: int, head_sha: str) -> FinishedBranch:
        """Record what an attempt pushed. Refused for an older attempt."""
        answer = await self._stub.FinishBranch(
            vcs_pb2.FinishBranchRequest(project_id=project_id, task_id=task_id, attempt=attempt, head_sha=head_sha),
            timeout=FINISH_BRANCH_TIMEOUT_S,
        )
        return FinishedBranch(answer.branch, answer.head_sha, answer.commits, answer.files_changed)


class WorkflowClient:
    """The queue. Only workflow changes the state of a task."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = workflow_pb2_grpc.WorkflowServiceStub(channel)

    async def claim_tasks(
        self,
        organization_id: str,
        agent_id: str,
        sandbox_ids: Sequence[str],
        capabilities: Sequence[str],
        lease_s: int,
        project_ids: Sequence[str] = (),
    ) -> list[ClaimedTask]:
        """Up to as many ready tasks as there are sandbox ids, each under a lease."""
        answer = await self._stub.ClaimTasks(
            workflow_pb2.ClaimTasksRequest(
                organization_ids=[organization_id],
                agent_id=agent_id,
                max=len(sandbox_ids),
                sandbox_ids=sandbox_ids,
                capabilities=capabilities,
                lease_s=lease_s,
                project_ids=project_ids,
            )
        )
        return [
            ClaimedTask(
                task_id=task.task_id,
                ticket_id=task.ticket_id,
                project_id=task.project_id,
                organization_id=task.organization_id,
                spec_id=task.spec_id,
                execution_id=task.execution_id,
                title=task.title,
                description=task.description,
                task_type=task.task_type,
                phase_id=task.phase_id,
                priority=task.priority,
                attempt=task.attempt,
                sandbox_id=task.sandbox_id,
                timeout_s=task.timeout_s,
                base_branch=task.base_branch,
                execution_config=_object(task.execution_config_json),
                context=_object(task.context_json),
                owned_files=list(task.owned_files),
                has_repository=task.has_repository,
                lease_expires_at=moment(task.lease_expires_at) if task.HasField("lease_expires_at") else None,
                dependency_branches=list(task.dependency_branches),
            )
            for task in answer.tasks
        ]

    async def start_tasks(self, attempts: Sequence[Attempt]) -> dict[str, str]:
        """Task id → state of the attempt; held attempts are running from now on."""
        answer = await self._stub.StartTasks(workflow_pb2.StartTasksRequest(attempts=_attempts(attempts)))
        return _statuses(answer)

    async def heartbeat_tasks(self, attempts: Sequence[Attempt], lease_s: int) -> dict[str, str]:
        """Task id → state of the attempt; the leases of held attempts are renewed."""
        answer = await self._stub.HeartbeatTasks(
            workflow_pb2.HeartbeatTasksRequest(attempts=_attempts(attempts), lease_s=lease_s)
        )
        return _statuses(answer)

    async def release_tasks(self, attempts: Sequence[Attempt], reason: str, *, start_failed: bool = False) -> None:
        """Give tasks back without counting a retry; `start_failed`: because no sandbox could be made for them."""
        await self._stub.ReleaseTasks(
            workflow_pb2.ReleaseTasksRequest(attempts=_attempts(attempts), reason=reason, start_failed=start_failed)
        )

    async def complete_task(
        self, attempt: Attempt, result: dict[str, Any], branch: str, head_sha: str
    ) -> tuple[str, list[str]]:
        """The task's status after its attempt finished, and the ids of what waits for no task any more.

        Refused with `workflow.attempt_superseded`.
        """
        answer = await self._stub.CompleteTask(
            workflow_pb2.CompleteTaskRequest(
                task_id=attempt.task_id,
                attempt=attempt.attempt,
                sandbox_id=attempt.sandbox_id,
                result_json=json.dumps(result),
                branch=branch,
                head_sha=head_sha,
            )
        )
        return answer.status, list(answer.unblocked_task_ids)

    async def fail_task(self, attempt: Attempt, error: str, result: dict[str, Any], permanent: bool) -> FailedTask:
        """What becomes of the task after its attempt failed. Refused with `workflow.attempt_superseded`."""
        answer = await self._stub.FailTask(
            workflow_pb2.FailTaskRequest(
                task_id=attempt.task_id,
                attempt=attempt.attempt,
                sandbox_id=attempt.sandbox_id,
                error=error,
                result_json=json.dumps(result),
                permanent=permanent,
            )
        )
        retry_at = moment(answer.retry_at) if answer.HasField("retry_at") else None
        return FailedTask(answer.status, answer.will_retry, retry_at)

    async def tasks(self, ids: Sequence[str]) -> dict[str, workflow_pb2.Task]:
        """The tasks that exist, by id."""
        answer = await self._stub.BatchGetTasks(workflow_pb2.BatchGetTasksRequest(ids=ids))
        return {task.id: task for task in answer.tasks}


def _attempts(attempts: Sequence[Attempt]) -> list[workflow_pb2.TaskAttempt]:
    return [
        workflow_pb2.TaskAttempt(task_id=item.task_id, attempt=item.attempt, sandbox_id=item.sandbox_id)
        for item in attempts
    ]


def _statuses(answer: Any) -> dict[str, str]:
    return {status.task_id: _STATES.get(status.state, LOST) for status in answer.statuses}
