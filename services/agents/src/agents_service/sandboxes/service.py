"""The life of a sandbox: started by a claim, ended once, and what can be read of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agents_service import events
from agents_service.agents.service import AgentService
from agents_service.clients import IdentityClient, VcsClient, WorkflowClient
from agents_service.errors import SANDBOX_NOT_FOUND
from agents_service.ingest.rules import StreamState
from agents_service.ingest.service import IngestService
from agents_service.sandboxes import rules, store
from agents_service.sandboxes.tables import Sandbox
from agents_service.settings import Settings
from servicekit.auth import Principal, PrincipalType
from servicekit.db import Database, Tx
from servicekit.errors import AppError

_log = logging.getLogger(__name__)

REVOCATIONS_PER_RUN = 100
REVOCATION_RETRY_S = 15
SWEPT_PER_RUN = 500


@dataclass(frozen=True, slots=True)
class NewSandbox:
    """What a claim knows of the sandbox it starts."""

    id: str
    organization_id: str
    project_id: str
    task_id: str
    ticket_id: str
    spec_id: str
    execution_id: str
    agent_id: str
    attempt: int
    engine: str
    isolation: str
    branch: str
    base_sha: str
    phase_id: str = ""


class SandboxService:
    """Sandboxes of all organizations."""

    def __init__(
        self,
        db: Database,
        agents: AgentService,
        ingest: IngestService,
        workflow: WorkflowClient,
        vcs: VcsClient,
        identity: IdentityClient,
        settings: Settings,
    ) -> None:
        self.db = db
        self.agents = agents
        self.ingest = ingest
        self.workflow = workflow
        self.vcs = vcs
        self.identity = identity
        self.settings = settings

    async def start(self, tx: Tx, new: NewSandbox) -> Sandbox:
        """Make a running sandbox with its stream; joins the transaction of the claim."""
        sandbox = await store.add(
            tx,
            id=new.id,
            organization_id=new.organization_id,
            project_id=new.project_id,
            task_id=new.task_id,
            ticket_id=new.ticket_id,
            spec_id=new.spec_id,
            execution_id=new.execution_id,
            phase_id=new.phase_id,
            agent_id=new.agent_id,
            attempt=new.attempt,
            engine=new.engine,
            isolation=new.isolation,
            branch=new.branch,
            base_sha=new.base_sha,
        )
        await self.ingest.open_stream(
            tx,
            StreamState(
                sandbox_id=new.id,
                organization_id=new.organization_id,
                agent_id=new.agent_id,
                task_id=new.task_id,
                ticket_id=new.ticket_id,
                project_id=new.project_id,
                spec_id=new.spec_id,
                execution_id=new.execution_id,
                phase_id=new.phase_id,
                attempt=new.attempt,
                is_open=True,
                close_reason=None,
                last_sequence=0,
                greatest_event_id=None,
            ),
        )
        tx.emit(
            events.sandbox_started(sandbox),
            aggregate_id=sandbox.id,
            version=sandbox.version,
            organization_id=sandbox.organization_id,
        )
        return sandbox

    async def end(
        self, tx: Tx, sandbox_id: str, reason: str, completion: dict[str, Any] | None = None
    ) -> Sandbox | None:
        """End a sandbox exactly once: fence its events, count its time, and note that its tokens are to die.

        None when it was over already. Joins the transaction.
        """
        sandbox = await store.end(tx, sandbox_id, reason, completion)
        if sandbox is None:
            return None
        assert sandbox.ended_at is not None
        await self.ingest.close_stream(tx, sandbox_id, reason)
        lived_ms = max(0, round((sandbox.ended_at - sandbox.started_at).total_seconds() * 1000))
        organization_id = sandbox.organization_id
        tx.emit(
            events.sandbox_ended(sandbox, reason, sandbox.ended_at),
            aggregate_id=sandbox_id,
            version=sandbox.version,
            organization_id=organization_id,
        )
        tx.emit(
            events.usage_recorded([events.sandbox_time(sandbox, lived_ms, sandbox.ended_at)]),
            aggregate_id=sandbox_id,
            version=sandbox.version,
            organization_id=organization_id,
        )
        # The event of a completion may be here before its answer: the worker may still have to ask for that again.
        handed_in = completion is not None or reason == rules.COMPLETED
        delay_s = self.settings.revoke_after_completion_s if handed_in else 0
        await store.want_revocation(tx, sandbox_id, organization_id, f"sandbox {reason}", delay_s)
        if not await store.has_running(tx, sandbox.agent_id):
            await self.agents.work_ended(tx, sandbox.agent_id)
        return sandbox

    async def count_running(self, agent_id: str, tx: Tx | None = None) -> int:
        """How many sandboxes of an agent run. Joins the transaction, if there is one."""
        if tx is not None:
            return await store.count_running(tx, agent_id)
        async with self.db.reader() as own:
            return await store.count_running(own, agent_id)

    async def end_many(self, sandbox_ids: Sequence[str], reason: str) -> list[str]:
        """End sandboxes for another service; returns those that were running."""
        ended = []
        for sandbox_id in sandbox_ids:
            async with self.db.uow() as tx:
                if await self.end(tx, sandbox_id, reason if reason in rules.REASONS else rules.TERMINATED) is not None:
                    ended.append(sandbox_id)
        return ended

    async def readable(self, principal: Principal, sandbox_id: str, permission: str = "agent:read") -> Sandbox:
        """A sandbox that `principal` may see: its own for a sandbox or agent. Raises 404, 403."""
        async with self.db.reader() as tx:
            sandbox = await store.get(tx, sandbox_id)
        if sandbox is None:
            raise SANDBOX_NOT_FOUND()
        if principal.type is PrincipalType.SANDBOX and principal.id != sandbox_id:
            raise SANDBOX_NOT_FOUND()
        if principal.type is PrincipalType.AGENT and principal.id != sandbox.agent_id:
            raise SANDBOX_NOT_FOUND()
        principal.require(permission, sandbox.organization_id, SANDBOX_NOT_FOUND)
        return sandbox

    async def batch(self, ids: Sequence[str]) -> Sequence[Sandbox]:
        """Sandboxes by id, for other services."""
        async with self.db.reader() as tx:
            return await store.by_ids(tx, ids)

    async def state_counts(self, organizations: Sequence[str]) -> Sequence[tuple[str, str, int]]:
        """`(organization, state, count)` of running sandboxes, for other services."""
        async with self.db.reader() as tx:
            return await store.state_counts(tx, organizations)

    async def revoke_tokens(self) -> int:
        """Execute revocations that are due at identity; returns how many."""
        async with self.db.uow() as tx:
            due = await store.due_revocations(tx, REVOCATIONS_PER_RUN, REVOCATION_RETRY_S)
        done: list[str] = []
        for intent in due:
            try:
                await self.identity.revoke(
                    intent.principal_type, intent.principal_id, intent.organization_id, intent.reason
                )
            except AppError as error:
                _log.warning("revocation of %s is put off: %s", intent.principal_id, error.detail)
                continue
            done.append(intent.principal_id)
        if done:
            async with self.db.uow() as tx:
                await store.revoked(tx, done)
        return len(done)

    async def sweep(self) -> int:
        """End silent sandboxes whose task has gone on without them; returns how many.

        Asks workflow, for an event may have been missed; a sandbox that still holds its task is left to its lease.
        """
        async with self.db.reader() as tx:
            silent = await store.silent(tx, self.settings.task_lease_s * 1.5, SWEPT_PER_RUN)
        if not silent:
            return 0
        tasks = await self.workflow.tasks(sorted({sandbox.task_id for sandbox in silent}))
        ended = 0
        for sandbox in silent:
            task = tasks.get(sandbox.task_id)
            reason = rules.reason_after(
                task.status if task is not None else None,
                task.attempt if task is not None else 0,
                task.sandbox_id if task is not None else "",
                sandbox.attempt,
                sandbox.id,
            )
            if reason is None:
                continue
            async with self.db.uow() as tx:
                ended += await self.end(tx, sandbox.id, reason) is not None
        return ended
