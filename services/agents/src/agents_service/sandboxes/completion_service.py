"""The end of an attempt, and the heartbeats until then."""

from __future__ import annotations

from datetime import datetime

from agents_service import events
from agents_service.clients import CANCELLED, ENDED, HELD, LOST, Attempt, token_subject
from agents_service.errors import ATTEMPT_SUPERSEDED, SANDBOX_ENDED, TASK_NOT_FOUND
from agents_service.sandboxes import rules, store
from agents_service.sandboxes.schemas import (
    ReleaseRequest,
    SandboxHeartbeatAck,
    SandboxReleased,
    TaskComplete,
    TaskCompleted,
    UsageAccepted,
    UsageReport,
)
from agents_service.sandboxes.service import SandboxService
from agents_service.sandboxes.tables import Sandbox
from omoios.agents.events.v1 import events_pb2
from servicekit.auth import Principal, PrincipalType
from servicekit.clock import utc_now
from servicekit.errors import AppError

_STATE_BY_REASON = {rules.CANCELLED: "cancelled", rules.LOST: "superseded"}


class AttemptService:
    """What the worker of an attempt does with it as a whole."""

    def __init__(self, sandboxes: SandboxService) -> None:
        self.sandboxes = sandboxes

    async def complete(self, principal: Principal, sandbox_id: str, body: TaskComplete) -> TaskCompleted:
        """Hand in the result: its branch to vcs, its outcome to workflow, then the sandbox ends. Idempotent.

        Raises 404 for a foreign sandbox or task, 409 `agents.attempt_superseded` for a late attempt, 409
        `agents.sandbox_ended` when it ended in another way.
        """
        sandbox = await self._working(principal, sandbox_id)
        if body.task_id != sandbox.task_id:
            raise TASK_NOT_FOUND(f"Sandbox {sandbox_id} does not work on task {body.task_id}.")
        reason = rules.COMPLETED if body.success else rules.FAILED
        if sandbox.state == rules.ENDED and sandbox.completion is None:
            # The event of a completion may end the sandbox before its answer is kept: workflow gives that answer again.
            if sandbox.end_reason != reason:
                raise _over(sandbox)
        elif sandbox.completion is not None:
            stored = TaskCompleted.model_validate(sandbox.completion)
            if (stored.new_status == "failed") == body.success:
                raise SANDBOX_ENDED("This attempt was completed with the other outcome.")
            return stored
        attempt = Attempt(sandbox.task_id, sandbox.attempt, sandbox.id)
        try:
            answer = await (self._succeed if body.success else self._fail)(sandbox, attempt, body)
        except AppError as error:
            if not error.code.endswith(".attempt_superseded"):
                raise
            async with self.sandboxes.db.uow() as tx:
                await self.sandboxes.end(tx, sandbox_id, rules.LOST)
            raise ATTEMPT_SUPERSEDED() from error
        async with self.sandboxes.db.uow() as tx:
            completion = answer.model_dump(mode="json")
            if await self.sandboxes.end(tx, sandbox_id, reason, completion) is None:
                await store.set_completion(tx, sandbox_id, completion)
            return tx.result(answer)

    async def heartbeat(self, principal: Principal, sandbox_id: str) -> SandboxHeartbeatAck:
        """Renew the lease; tells the worker to stop when its attempt is over. Raises 404, 503."""
        sandbox = await self._working(principal, sandbox_id)
        pending = 0
        if sandbox.state == rules.ENDED:
            state = _STATE_BY_REASON.get(sandbox.end_reason or "", "ended")
        else:
            attempt = Attempt(sandbox.task_id, sandbox.attempt, sandbox.id)
            states = await self.sandboxes.workflow.heartbeat_tasks([attempt], self.sandboxes.settings.task_lease_s)
            held = states.get(sandbox.task_id, LOST)
            reason = rules.LOST if held == HELD else await self._reason(sandbox, held)
            async with self.sandboxes.db.uow() as tx:
                if held == HELD:
                    await store.beat(tx, sandbox_id)
                    await self.sandboxes.ingest.beat(tx, sandbox_id)
                    pending = await store.count_waiting(tx, sandbox_id)
                    state = "running"
                else:
                    await self.sandboxes.end(tx, sandbox_id, reason)
                    state = _STATE_BY_REASON.get(reason, "ended")
        token, expires_at = None, None
        if state == "running":
            token, expires_at = await self._renewed(principal, sandbox)
        return SandboxHeartbeatAck.model_validate(
            {
                "sandbox_id": sandbox_id,
                "state": state,
                "messages_pending": pending,
                "heartbeat_interval_s": self.sandboxes.settings.sandbox_heartbeat_interval_s,
                "token": token,
                "expires_at": expires_at,
            }
        )

    async def release(self, principal: Principal, sandbox_id: str, body: ReleaseRequest) -> SandboxReleased:
        """Give the task back without counting a retry; the sandbox ends as lost. Raises 404, 409."""
        sandbox = await self._working(principal, sandbox_id)
        if sandbox.state == rules.ENDED:
            raise _over(sandbox)
        attempt = Attempt(sandbox.task_id, sandbox.attempt, sandbox.id)
        await self.sandboxes.workflow.release_tasks([attempt], body.reason)
        async with self.sandboxes.db.uow() as tx:
            await self.sandboxes.end(tx, sandbox_id, rules.LOST)
            return tx.result(SandboxReleased(task_id=sandbox.task_id))

    async def report_usage(self, principal: Principal, sandbox_id: str, body: UsageReport) -> UsageAccepted:
        """Tell what model calls of a sandbox used; priced by billing, once per usage id. Raises 404, 409."""
        sandbox = await self._working(principal, sandbox_id)
        if sandbox.state == rules.ENDED and sandbox.completion is None:
            raise _over(sandbox)
        moment = events.stamp(utc_now())
        entries = [
            events_pb2.UsageEntry(
                usage_id=f"{sandbox_id}:{item.usage_id}",
                project_id=sandbox.project_id,
                spec_id=sandbox.spec_id,
                execution_id=sandbox.execution_id,
                phase_id=sandbox.phase_id,
                ticket_id=sandbox.ticket_id,
                task_id=sandbox.task_id,
                sandbox_id=sandbox_id,
                agent_id=sandbox.agent_id,
                kind="model_tokens",
                provider=item.provider,
                model=item.model,
                input_tokens=item.input_tokens,
                output_tokens=item.output_tokens,
                cache_read_tokens=item.cache_read_tokens,
                cache_write_tokens=item.cache_write_tokens,
                time=moment,
            )
            for item in body.entries
        ]
        async with self.sandboxes.db.uow() as tx:
            tx.emit(
                events.usage_recorded(entries),
                aggregate_id=sandbox_id,
                version=sandbox.version,
                organization_id=sandbox.organization_id,
            )
            return tx.result(UsageAccepted(accepted=len(entries)))

    async def _succeed(self, sandbox: Sandbox, attempt: Attempt, body: TaskComplete) -> TaskCompleted:
        branch, head_sha, commits = "", "", 0
        if sandbox.branch:
            finished = await self.sandboxes.vcs.finish_branch(
                sandbox.project_id, sandbox.task_id, sandbox.attempt, body.head_sha
            )
            branch, commits = finished.branch, finished.commits
            head_sha = finished.head_sha if finished.commits else ""
        status, unblocked = await self.sandboxes.workflow.complete_task(attempt, body.result or {}, branch, head_sha)
        return TaskCompleted(
            task_id=sandbox.task_id,
            new_status=status or "completed",
            unblocked_tasks=unblocked,
            task_status=status or "completed",
            branch=branch or None,
            head_sha=head_sha or None,
            commits=commits,
        )

    async def _fail(self, sandbox: Sandbox, attempt: Attempt, body: TaskComplete) -> TaskCompleted:
        error = rules.error_text(body.error_message, body.result)
        failed = await self.sandboxes.workflow.fail_task(attempt, error, body.result or {}, body.permanent)
        return TaskCompleted(
            task_id=sandbox.task_id,
            new_status="failed",
            task_status=failed.status or "failed",
            will_retry=failed.will_retry,
            retry_at=failed.retry_at,
        )

    async def _reason(self, sandbox: Sandbox, held: str) -> str:
        """How the attempt ended that no longer holds its task; "ended" alone does not tell success from failure."""
        if held != ENDED:
            return rules.CANCELLED if held == CANCELLED else rules.LOST
        task = (await self.sandboxes.workflow.tasks([sandbox.task_id])).get(sandbox.task_id)
        return (
            rules.reason_after(
                task.status if task is not None else None,
                task.attempt if task is not None else 0,
                task.sandbox_id if task is not None else "",
                sandbox.attempt,
                sandbox.id,
            )
            or rules.LOST
        )

    async def _working(self, principal: Principal, sandbox_id: str) -> Sandbox:
        sandbox = await self.sandboxes.readable(principal, sandbox_id, "task:write")
        if principal.type is PrincipalType.SANDBOX and int(principal.claims.get("attempt", 0)) != sandbox.attempt:
            raise ATTEMPT_SUPERSEDED()
        return sandbox

    async def _renewed(self, principal: Principal, sandbox: Sandbox) -> tuple[str | None, datetime | None]:
        ttl_s = self.sandboxes.settings.sandbox_token_ttl_s
        if principal.type is not PrincipalType.SANDBOX or principal.expires_at is None:
            return None, None
        if principal.expires_at - utc_now().timestamp() > ttl_s / 2:
            return None, None
        subject = token_subject(
            sandbox.organization_id,
            sandbox.agent_id,
            sandbox.task_id,
            sandbox.id,
            sandbox.attempt,
            sandbox.project_id,
        )
        return (await self.sandboxes.identity.issue_sandbox_tokens([subject], ttl_s)).get(sandbox.id, (None, None))


def _over(sandbox: Sandbox) -> AppError:
    return ATTEMPT_SUPERSEDED() if sandbox.end_reason == rules.LOST else SANDBOX_ENDED()
