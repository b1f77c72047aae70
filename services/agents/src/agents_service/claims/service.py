"""Claims: a ready task becomes a started sandbox with its branch and its token, or goes back to the queue."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from agents_service.agents.rules import free_slots, takes_tasks
from agents_service.agents.service import AgentService
from agents_service.agents.tables import Agent
from agents_service.claims import rules
from agents_service.claims.schemas import (
    Claim,
    ClaimAnswer,
    ClaimError,
    ClaimRequest,
    Limits,
    RepositoryAccess,
    SandboxAccess,
    TaskOut,
)
from agents_service.clients import HELD, Attempt, ClaimedTask, StartedBranch, token_subject
from agents_service.errors import AGENT_NOT_ACTIVE
from agents_service.sandboxes.rules import LOST
from agents_service.sandboxes.service import NewSandbox, SandboxService
from agents_service.sandboxes.wakeups_service import Wakeups
from agents_service.settings import Settings
from servicekit.auth import Principal
from servicekit.errors import AppError
from servicekit.ids import new_id

_log = logging.getLogger(__name__)

OVER_CAPACITY = "agents.over_capacity"

Gone = Callable[[], Awaitable[bool]]


class ClaimService:
    """The long poll of the runners."""

    def __init__(self, agents: AgentService, sandboxes: SandboxService, wakeups: Wakeups, settings: Settings) -> None:
        self.agents = agents
        self.sandboxes = sandboxes
        self.wakeups = wakeups
        self.settings = settings

    async def claim(self, principal: Principal, agent_id: str, body: ClaimRequest, gone: Gone) -> ClaimAnswer:
        """Claim up to `max` tasks, as far as the agent's capacity allows, waiting for the first one.

        A client that leaves while it waits leaves nothing claimed. Raises 404, 409 `agents.agent_not_active`, 503.
        """
        agent = await self.agents.claimant(principal, agent_id)
        if not takes_tasks(agent.status):
            raise AGENT_NOT_ACTIVE(agent_status=agent.status)
        labels = rules.labels_of(agent.capabilities, body.labels)
        deadline = time.monotonic() + body.wait_s
        while True:
            if self.wakeups.closed or await gone():
                return ClaimAnswer(claims=[], errors=[])
            slots = free_slots(agent.capacity, await self.sandboxes.count_running(agent_id), body.max)
            if slots:
                sandbox_ids = [new_id("sandbox-") for _ in range(slots)]
                tasks = await self.sandboxes.workflow.claim_tasks(
                    agent.organization_id, agent_id, sandbox_ids, labels, self.settings.task_lease_s, body.project_ids
                )
                if tasks:
                    return await self._start_or_release(agent, tasks, body.isolation, gone)
            left = deadline - time.monotonic()
            if left <= 0:
                return ClaimAnswer(claims=[], errors=[])
            pause_s = self.settings.claim_poll_s * random.uniform(0.75, 1.25)
            await self.wakeups.wait(agent.organization_id, min(pause_s, left))

    async def _start_or_release(
        self, agent: Agent, tasks: Sequence[ClaimedTask], isolation: str, gone: Gone
    ) -> ClaimAnswer:
        try:
            answer = await self._start(agent, tasks, isolation)
        except BaseException as error:
            # A part is down or the request was cancelled: nobody will work on these, so they must not wait for their
            # lease.
            reason = error.code if isinstance(error, AppError) else "the claim was interrupted"
            await asyncio.shield(self._give_up(tasks, reason))
            raise
        if await gone():
            await asyncio.shield(self._give_up(tasks, "the claiming client went away"))
            return ClaimAnswer(claims=[], errors=[])
        return answer

    async def _start(self, agent: Agent, tasks: Sequence[ClaimedTask], isolation: str) -> ClaimAnswer:
        errors: dict[str, ClaimError] = {}
        branches = await self._branches(tasks, errors)
        startable = [task for task in tasks if task.task_id not in errors]
        tokens = await self._tokens(agent, startable, errors)
        startable = [task for task in startable if task.task_id not in errors]
        if startable:
            started = await self._commit(agent, startable, branches, isolation)
            for task in startable[started:]:
                errors[task.task_id] = ClaimError(
                    task_id=task.task_id, code=OVER_CAPACITY, detail="Another claim took the agent's last slot."
                )
            startable = startable[:started]
        if startable:
            states = await self.sandboxes.workflow.start_tasks([_attempt(task) for task in startable])
            lost = [task for task in startable if states.get(task.task_id) != HELD]
            for task in lost:
                errors[task.task_id] = ClaimError(
                    task_id=task.task_id, code="agents.attempt_superseded", detail="The lease ran out while starting."
                )
            await self._end(lost)
        failed = [task for task in tasks if task.task_id in errors]
        if failed:
            _log.warning("claims failed: %s", "; ".join(f"{e.task_id}: {e.code} {e.detail}" for e in errors.values()))
            for task in failed:
                error = errors[task.task_id]
                branch = branches.get(task.task_id)
                # vcs answered, and not with a branch: the next claim would be answered alike. That a service is away
                # or a lease was lost says nothing about the task.
                start_failed = branch is not None and bool(branch.error_code)
                await self._release([task], f"{error.code}: {error.detail}", start_failed=start_failed)
        return ClaimAnswer(
            claims=[
                self._claim(task, branches.get(task.task_id), tokens[task.sandbox_id])
                for task in startable
                if task.task_id not in errors
            ],
            errors=list(errors.values()),
        )

    async def _branches(self, tasks: Sequence[ClaimedTask], errors: dict[str, ClaimError]) -> dict[str, StartedBranch]:
        wanted = [task for task in tasks if rules.needs_repository(task.execution_config, task.has_repository)]
        if not wanted:
            return {}
        try:
            branches = await self.sandboxes.vcs.start_branches(wanted)
        except AppError as error:
            errors.update(_errors(wanted, error))
            return {}
        for task in wanted:
            branch = branches.get(task.task_id)
            if branch is None or branch.error_code:
                errors[task.task_id] = ClaimError(
                    task_id=task.task_id,
                    code=branch.error_code if branch else "vcs.branch_missing",
                    detail=branch.error_detail if branch else "No branch was started for this task.",
                )
        return branches

    async def _tokens(
        self, agent: Agent, tasks: Sequence[ClaimedTask], errors: dict[str, ClaimError]
    ) -> dict[str, SandboxAccess]:
        if not tasks:
            return {}
        subjects = [
            token_subject(task.organization_id, agent.id, task.task_id, task.sandbox_id, task.attempt, task.project_id)
            for task in tasks
        ]
        try:
            tokens = await self.sandboxes.identity.issue_sandbox_tokens(subjects, self.settings.sandbox_token_ttl_s)
        except AppError as error:
            errors.update(_errors(tasks, error))
            return {}
        for task in tasks:
            if task.sandbox_id not in tokens:
                errors[task.task_id] = ClaimError(
                    task_id=task.task_id, code="identity.token_missing", detail="No token was issued for the sandbox."
                )
        return {
            sandbox_id: SandboxAccess(id=sandbox_id, token=token, expires_at=expires_at)
            for sandbox_id, (token, expires_at) in tokens.items()
        }

    async def _commit(
        self, agent: Agent, tasks: Sequence[ClaimedTask], branches: dict[str, StartedBranch], isolation: str
    ) -> int:
        """Commits the sandboxes of the first tasks, as many as the agent may have; returns how many.

        Raises 409 `agents.agent_not_active` where the agent was closed meanwhile.
        """
        async with self.sandboxes.db.uow() as tx:
            # The agent before its sandboxes, unlike everywhere else: nobody knows these yet, so nobody waits for them.
            agent = await self.agents.lock_taking(tx, agent.id)
            slots = free_slots(agent.capacity, await self.sandboxes.count_running(agent.id, tx), len(tasks))
            for task in tasks[:slots]:
                branch = branches.get(task.task_id)
                await self.sandboxes.start(
                    tx,
                    NewSandbox(
                        id=task.sandbox_id,
                        organization_id=task.organization_id,
                        project_id=task.project_id,
                        task_id=task.task_id,
                        ticket_id=task.ticket_id,
                        phase_id=task.phase_id,
                        spec_id=task.spec_id,
                        execution_id=task.execution_id,
                        agent_id=agent.id,
                        attempt=task.attempt,
                        engine=rules.engine_of(task.execution_config),
                        isolation=isolation,
                        branch=branch.branch if branch else "",
                        base_sha=branch.base_sha if branch else "",
                    ),
                )
            if slots:
                await self.agents.work_began(tx, agent, tasks[0].task_id)
        return slots

    def _claim(self, task: ClaimedTask, branch: StartedBranch | None, sandbox: SandboxAccess) -> Claim:
        return Claim(
            task=TaskOut(
                id=task.task_id,
                ticket_id=task.ticket_id,
                project_id=task.project_id,
                organization_id=task.organization_id,
                spec_id=task.spec_id or None,
                execution_id=task.execution_id or None,
                title=task.title,
                description=task.description,
                task_type=task.task_type,
                phase_id=task.phase_id,
                priority=task.priority,
                execution_config=task.execution_config,
                owned_files=task.owned_files,
            ),
            context=task.context,
            attempt=task.attempt,
            repository=RepositoryAccess(clone_url=branch.clone_url, branch=branch.branch, base_sha=branch.base_sha)
            if branch
            else None,
            sandbox=sandbox,
            lease_s=self.settings.task_lease_s,
            heartbeat_interval_s=self.settings.sandbox_heartbeat_interval_s,
            limits=Limits(timeout_s=task.timeout_s or rules.DEFAULT_TIMEOUT_S),
        )

    async def _give_up(self, tasks: Sequence[ClaimedTask], reason: str) -> None:
        await self._end(tasks)
        await self._release(tasks, reason)

    async def _end(self, tasks: Sequence[ClaimedTask]) -> None:
        for task in tasks:
            async with self.sandboxes.db.uow() as tx:
                await self.sandboxes.end(tx, task.sandbox_id, LOST)

    async def _release(self, tasks: Sequence[ClaimedTask], reason: str, *, start_failed: bool = False) -> None:
        try:
            await self.sandboxes.workflow.release_tasks(
                [_attempt(task) for task in tasks], reason, start_failed=start_failed
            )
        except AppError as error:
            # Their lease runs out by itself.
            _log.warning("tasks could not be released: %s", error.detail)


def _attempt(task: ClaimedTask) -> Attempt:
    return Attempt(task.task_id, task.attempt, task.sandbox_id)


def _errors(tasks: Sequence[ClaimedTask], error: AppError) -> dict[str, ClaimError]:
    return {task.task_id: ClaimError(task_id=task.task_id, code=error.code, detail=error.detail) for task in tasks}
