"""Use cases around registered agents."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from agents_service import events
from agents_service.agents import rules, store
from agents_service.agents.schemas import (
    AgentOut,
    AgentPatch,
    AgentRegister,
    AgentRegistered,
    CleanupResult,
    HeartbeatAck,
    HeartbeatMessage,
)
from agents_service.agents.tables import Agent
from agents_service.clients import IdentityClient
from agents_service.errors import (
    AGENT_ENDED,
    AGENT_NOT_ACTIVE,
    AGENT_NOT_FOUND,
    CHECKSUM_INVALID,
    HEARTBEAT_MISMATCH,
)
from agents_service.settings import Settings
from servicekit.auth import Principal, PrincipalType
from servicekit.clock import utc_now
from servicekit.db import Database, Tx
from servicekit.errors import invalid
from servicekit.ids import new_id

CLEANED_MAX = 1_000


class AgentService:
    """Registered agents of all organizations; each use case checks access in the organization of the row."""

    def __init__(self, db: Database, identity: IdentityClient, settings: Settings) -> None:
        self.db = db
        self.identity = identity
        self.settings = settings
        self._on_terminated: Callable[[Tx, Agent], Awaitable[None]] | None = None

    def on_terminated(self, reaction: Callable[[Tx, Agent], Awaitable[None]]) -> None:
        """Have `reaction` join the transaction in which somebody takes an agent out of service."""
        self._on_terminated = reaction

    async def register(self, principal: Principal, body: AgentRegister) -> AgentRegistered:
        """Register an agent and issue its token. Raises 422 for an unknown status or an ambiguous organization."""
        organization_id = self._organization(principal, body.organization_id)
        asked = rules.parse_status(body.status)
        capabilities = rules.normalised(body.capabilities, "capabilities")
        tags = rules.normalised(body.tags or [], "tags")
        if asked != rules.SPAWNING:
            rules.check_transition(rules.SPAWNING, asked)
        agent_id = new_id()
        # The token comes first: one without an agent opens nothing, an agent without its token would be lost.
        token, expires_at = await self.identity.issue_agent_token(
            organization_id, agent_id, self.settings.agent_token_ttl_s
        )
        async with self.db.uow() as tx:
            agent = await store.add(
                tx,
                id=agent_id,
                organization_id=organization_id,
                agent_name=rules.agent_name(body.agent_type, body.phase_id, agent_id),
                agent_type=body.agent_type,
                phase_id=body.phase_id or None,
                status=asked,
                capabilities=capabilities,
                capacity=body.capacity,
                health_status="healthy",
                tags=tags,
                registered_by=principal.subject,
            )
            if asked != rules.SPAWNING:
                await self._log_move(tx, agent_id, rules.SPAWNING, asked, "Registered", principal.subject)
            tx.emit(events.agent_registered(agent), aggregate_id=agent_id, version=1, organization_id=organization_id)
            return tx.result(
                AgentRegistered(
                    **agent_out(agent).model_dump(),
                    token=token,
                    token_expires_at=expires_at,
                    heartbeat_interval_s=self.settings.heartbeat_interval_s,
                )
            )

    async def get(self, principal: Principal, agent_id: str) -> AgentOut:
        """One agent. Raises 404."""
        return agent_out(await self.readable(principal, agent_id))

    async def list_agents(
        self,
        principal: Principal,
        *,
        limit: int,
        offset: int,
        status: str | None,
        phase_id: str | None,
        organization_id: str | None,
    ) -> list[AgentOut]:
        """Agents of the caller's organizations, newest first."""
        wanted = rules.parse_status(status) if status is not None else None
        organizations = self._readable_organizations(principal, organization_id)
        async with self.db.reader() as tx:
            rows = await store.page(tx, organizations, limit=limit, offset=offset, status=wanted, phase_id=phase_id)
        return [agent_out(row) for row in rows]

    async def patch(self, principal: Principal, agent_id: str, body: AgentPatch) -> AgentOut:
        """Change an agent. Raises 404, 409 for a move that the status machine forbids, 422 for an unknown status."""
        target = rules.parse_status(body.status) if body.status is not None else None
        values: dict[str, Any] = {}
        if body.capabilities is not None:
            values["capabilities"] = rules.normalised(body.capabilities, "capabilities")
        if body.tags is not None:
            values["tags"] = rules.normalised(body.tags, "tags")
        if body.capacity is not None:
            values["capacity"] = body.capacity
        if body.health_status is not None:
            values["health_status"] = body.health_status
        async with self.db.uow() as tx:
            agent = await self._writable(tx, principal, agent_id)
            old = agent.status
            if target is not None and target != old:
                rules.check_transition(old, target)
                values |= {"status": target, "closed": rules.closes(target)}
                await self._log_move(tx, agent_id, old, target, "Changed by request", principal.subject)
            if not values:
                return agent_out(agent)
            agent = await store.change(tx, agent, **values)
            self._tell_update(tx, agent, old)
            if agent.status == rules.TERMINATED != old and self._on_terminated is not None:
                await self._on_terminated(tx, agent)
            return tx.result(agent_out(agent))

    async def set_availability(self, principal: Principal, agent_id: str, available: bool) -> AgentOut:
        """Open or close an agent for tasks: IDLE or DEGRADED. Raises 404, 409."""
        target = rules.IDLE if available else rules.DEGRADED
        async with self.db.uow() as tx:
            agent = await self._writable(tx, principal, agent_id)
            if available and agent.status in rules.ACTIVE:
                return tx.result(agent_out(agent))
            if agent.status == target:
                # Silence degraded it; now it stays so when it is heard again.
                agent = await store.change(tx, agent, closed=True)
                return tx.result(agent_out(agent))
            rules.check_transition(agent.status, target)
            agent = await self.move(
                tx, agent, target, "Availability toggle", principal.subject, closed=rules.closes(target)
            )
            return tx.result(agent_out(agent))

    async def heartbeat(self, principal: Principal, agent_id: str, body: HeartbeatMessage) -> HeartbeatAck:
        """Record a heartbeat: one update, no event. A number that was seen already changes nothing.

        Raises 400 for another id or a wrong checksum, 404, 409 `agents.agent_ended` when the agent cannot come back.
        """
        if body.agent_id != agent_id:
            raise HEARTBEAT_MISMATCH()
        if body.checksum is not None and (
            body.timestamp is None
            or body.checksum
            != rules.heartbeat_checksum(
                agent_id, body.timestamp, body.sequence_number, body.status, body.current_task_id, body.health_metrics
            )
        ):
            raise CHECKSUM_INVALID()
        metrics = json.dumps(body.health_metrics)
        organization_id = principal.organization_id
        if principal.type is not PrincipalType.AGENT or organization_id is None:
            organization_id = (await self.readable(principal, agent_id, "agent:write")).organization_id
        elif principal.id != agent_id:
            raise AGENT_NOT_FOUND()
        async with self.db.uow() as tx:
            seen = await store.heartbeat(
                tx, agent_id, organization_id, body.sequence_number, body.current_task_id, metrics
            )
            if seen is not None:
                last, missed, status, closed, received_at = seen
                fresh = body.sequence_number > last
                target = rules.status_after_heartbeat(status, body.status, closed=closed)
                if fresh and (missed > 0 or target != status):
                    await self._come_back(tx, agent_id, target, missed)
        if seen is None:
            agent = await self.readable(principal, agent_id, "agent:write")
            raise AGENT_ENDED(agent_status=agent.status)
        message = None if fresh else f"Sequence number {body.sequence_number} was received before."
        missing = rules.missing_sequence_numbers(last, body.sequence_number)
        if missing:
            message = f"Missing sequence numbers: {', '.join(map(str, missing))}"
        token, expires_at = await self._renewed(principal, organization_id)
        return HeartbeatAck(
            agent_id=agent_id,
            sequence_number=body.sequence_number,
            timestamp=received_at,
            message=message,
            token=token,
            token_expires_at=expires_at,
        )

    async def cleanup_stale(self, principal: Principal, timeout_s: int | None, mark_as: str) -> CleanupResult:
        """Mark silent agents: a status of the machine moves them there, any other word becomes their health status.

        Raises 403 for who may change no agent.
        """
        timeout = timeout_s or rules.STALE_AFTER_S
        label = mark_as.strip()
        if not 1 <= len(label) <= 50:
            raise invalid("mark_as", "must have 1 to 50 characters", mark_as, where="query")
        target = label.upper() if label.upper() in rules.STATUSES else None
        marked = 0
        async with self.db.uow() as tx:
            organizations = principal.require_organizations_with("agent:write")
            statuses = rules.cleanable(target)
            for row in await store.stale(tx, organizations, timeout, limit=CLEANED_MAX, statuses=statuses):
                agent = await store.get(tx, row.id, lock=True)
                if agent is None or agent.status not in statuses:
                    continue
                if target is None:
                    if agent.health_status != label:
                        self._tell_update(tx, await store.change(tx, agent, health_status=label), agent.status)
                        marked += 1
                elif rules.may_move(agent.status, target):
                    agent = await self.move(tx, agent, target, "Marked as stale", principal.subject)
                    if target == rules.TERMINATED and self._on_terminated is not None:
                        await self._on_terminated(tx, agent)
                    marked += 1
            return tx.result(
                CleanupResult(
                    marked_count=marked,
                    timeout_seconds=timeout,
                    marked_as=label,
                    message=f"Marked {marked} stale agents as {label}",
                )
            )

    async def claimant(self, principal: Principal, agent_id: str) -> Agent:
        """The agent for which `principal` may claim tasks. Raises 404 for another agent's token or a foreign agent."""
        if principal.type is PrincipalType.AGENT and principal.id != agent_id:
            raise AGENT_NOT_FOUND()
        return await self.readable(principal, agent_id, "agent:write")

    async def lock_taking(self, tx: Tx, agent_id: str) -> Agent:
        """The agent, locked, if it takes tasks. Raises 409 `agents.agent_not_active`, as after a closed claim."""
        agent = await store.get(tx, agent_id, lock=True)
        if agent is None or not rules.takes_tasks(agent.status):
            raise AGENT_NOT_ACTIVE(agent_status=rules.TERMINATED if agent is None else agent.status)
        return agent

    async def work_began(self, tx: Tx, agent: Agent, task_id: str) -> None:
        """A locked agent that takes tasks has its first sandbox: RUNNING. Joins the transaction."""
        if rules.may_move(agent.status, rules.RUNNING):
            await self.move(tx, agent, rules.RUNNING, "Task started", "agents", task_id)

    async def work_ended(self, tx: Tx, agent_id: str) -> None:
        """The last sandbox of a running agent is over: IDLE. Joins the transaction."""
        agent = await store.get(tx, agent_id, lock=True)
        if agent is not None and agent.status == rules.RUNNING:
            await self.move(tx, agent, rules.IDLE, "No task left", "agents")

    async def of_member(self, tx: Tx, user_id: str, organization_id: str | None, before: datetime) -> Sequence[str]:
        """Ids of the living agents that a user registered before a moment, in one organization or in all."""
        return await store.registered_by(tx, user_id, organization_id, before)

    async def forsaken(self, limit: int) -> Sequence[str]:
        """Ids of living agents whose registering member may not have agents in their organization any more."""
        async with self.db.reader() as tx:
            return await store.forsaken(tx, rules.MAY_REGISTER, limit)

    async def lock(self, tx: Tx, agent_id: str) -> Agent | None:
        """The agent, if it lives, locked until the end of the transaction."""
        agent = await store.get(tx, agent_id, lock=True)
        return None if agent is None or agent.status == rules.TERMINATED else agent

    async def terminate(self, tx: Tx, agent: Agent, reason: str) -> None:
        """Take a locked agent out of service for good. Joins the transaction."""
        if not rules.may_move(agent.status, rules.TERMINATED):
            agent = await self.move(tx, agent, rules.IDLE, reason, "agents")
        await self.move(tx, agent, rules.TERMINATED, reason, "agents")

    async def batch(self, ids: Sequence[str]) -> Sequence[Agent]:
        """Agents by id, for other services."""
        async with self.db.reader() as tx:
            return await store.by_ids(tx, ids)

    async def status_counts(self, organizations: Sequence[str]) -> Sequence[tuple[str, str, int]]:
        """`(organization, status, count)`, for other services."""
        async with self.db.reader() as tx:
            return await store.status_counts(tx, organizations)

    async def snapshot(self, after: str, limit: int) -> Sequence[Agent]:
        """A page of all agents by id, for rebuilding replicas."""
        async with self.db.reader() as tx:
            return await store.snapshot(tx, after, limit)

    def _organization(self, principal: Principal, asked: str | None) -> str:
        if asked is not None:
            principal.require("agent:write", asked, AGENT_NOT_FOUND)
            return asked
        own = principal.organizations_with("agent:write")
        if own:
            # The web client names none; a member of several means the first, as with a new project.
            return min(own)
        principal.require("agent:write", None)
        raise invalid("organization_id", "name the organization: you belong to none", type="missing")

    def _readable_organizations(self, principal: Principal, asked: str | None) -> list[str]:
        own = principal.organizations_with("agent:read")
        return own if asked is None else [asked] if asked in own else []

    async def readable(self, principal: Principal, agent_id: str, permission: str = "agent:read") -> Agent:
        """The agent's row. Raises 404, 403."""
        async with self.db.reader() as tx:
            agent = await store.get(tx, agent_id)
        if agent is None:
            raise AGENT_NOT_FOUND()
        principal.require(permission, agent.organization_id, AGENT_NOT_FOUND)
        return agent

    async def _writable(self, tx: Tx, principal: Principal, agent_id: str) -> Agent:
        agent = await store.get(tx, agent_id, lock=True)
        if agent is None or (principal.type is PrincipalType.AGENT and principal.id != agent_id):
            raise AGENT_NOT_FOUND()
        principal.require("agent:write", agent.organization_id, AGENT_NOT_FOUND)
        return agent

    async def _come_back(self, tx: Tx, agent_id: str, target: str, missed: int) -> None:
        agent = await store.get(tx, agent_id, lock=True)
        if agent is None:
            return
        if missed > 0:
            tx.emit(
                events.agent_recovered(agent_id),
                aggregate_id=agent_id,
                version=agent.version,
                organization_id=agent.organization_id,
            )
        if rules.may_move(agent.status, target):
            await self.move(tx, agent, target, "Heartbeat", f"agent:{agent_id}")

    async def _renewed(self, principal: Principal, organization_id: str) -> tuple[str | None, datetime | None]:
        if principal.type is not PrincipalType.AGENT or principal.expires_at is None:
            return None, None
        if principal.expires_at - utc_now().timestamp() > self.settings.agent_token_ttl_s / 2:
            return None, None
        return await self.identity.issue_agent_token(organization_id, principal.id, self.settings.agent_token_ttl_s)

    async def move(
        self, tx: Tx, agent: Agent, target: str, reason: str, by: str, task_id: str | None = None, **values: Any
    ) -> Agent:
        """Move a locked agent, log and announce it; joins the transaction. The move must be a legal one."""
        old = agent.status
        await self._log_move(tx, agent.id, old, target, reason, by, task_id)
        agent = await store.change(tx, agent, status=target, **values)
        self._tell_update(tx, agent, old, reason, by, task_id)
        return agent

    async def _log_move(
        self, tx: Tx, agent_id: str, old: str, new: str, reason: str, by: str, task_id: str | None = None
    ) -> None:
        await store.add_transition(
            tx,
            id=new_id(),
            agent_id=agent_id,
            from_status=old,
            to_status=new,
            reason=reason,
            triggered_by=by,
            task_id=task_id,
        )

    def _tell_update(
        self, tx: Tx, agent: Agent, old_status: str, reason: str = "", by: str = "", task_id: str | None = None
    ) -> None:
        tx.emit(
            events.agent_updated(agent, old_status, reason, by, task_id),
            aggregate_id=agent.id,
            version=agent.version,
            organization_id=agent.organization_id,
        )


def agent_out(agent: Agent) -> AgentOut:
    """The public shape of an agent."""
    return AgentOut(
        agent_id=agent.id,
        agent_name=agent.agent_name,
        organization_id=agent.organization_id,
        agent_type=agent.agent_type,
        phase_id=agent.phase_id,
        status=agent.status,
        capabilities=agent.capabilities,
        capacity=agent.capacity,
        health_status=agent.health_status,
        tags=agent.tags,
        is_available=agent.status in rules.ACTIVE,
        last_heartbeat=agent.last_heartbeat,
        created_at=agent.created_at,
        version=agent.version,
    )
