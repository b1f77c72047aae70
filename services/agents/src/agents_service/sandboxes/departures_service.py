"""What ends with an agent: its sandboxes and tokens, whether it was taken out of service or its member left.

A member who leaves takes nothing along: the agents that he registered end.

The work is the organization's. What his agents had in hand goes back to the queue, where another agent takes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from agents_service.agents.rules import may_register
from agents_service.agents.service import AgentService
from agents_service.agents.tables import Agent
from agents_service.sandboxes import store
from agents_service.sandboxes.rules import LOST
from agents_service.sandboxes.service import SandboxService
from servicekit.db import Tx

PER_RUN = 100


class DepartureService:
    """Ends agents whose registering member may not have them any more, and what ended agents leave at work."""

    def __init__(self, agents: AgentService, sandboxes: SandboxService) -> None:
        self._agents = agents
        self._sandboxes = sandboxes
        self.left_at_work = sandboxes.db.hint("agents_terminated")

    async def membership_changed(
        self, tx: Tx, user_id: str, organization_id: str, permissions: Sequence[str], active: bool, at: datetime
    ) -> None:
        """A member was removed or lost the permission: his agents of before that moment end. Joins the transaction."""
        if active and may_register(permissions):
            return
        reason = "Its member lost the permission" if active else "Its member left the organization"
        for agent_id in await self._agents.of_member(tx, user_id, organization_id, at):
            await self._end(tx, agent_id, reason)

    async def account_ended(self, tx: Tx, user_id: str, at: datetime) -> None:
        """An account was suspended or erased: its agents of before that moment end, wherever they are."""
        for agent_id in await self._agents.of_member(tx, user_id, None, at):
            await self._end(tx, agent_id, "Its member's account ended")

    async def sweep(self) -> int:
        """Ends agents that were registered while the news was on its way; returns how many."""
        found = await self._agents.forsaken(PER_RUN)
        for agent_id in found:
            async with self._sandboxes.db.uow() as tx:
                await self._end(tx, agent_id, "Its member left the organization")
        return len(found)

    async def terminated(self, tx: Tx, agent: Agent) -> None:
        """Somebody took an agent out of service: its token ends at once, its sandboxes by the job. Joins."""
        await store.want_revocation(tx, agent.id, agent.organization_id, "Taken out of service", 0, "agent")
        # Not here: sandboxes are locked before their agent, and this transaction holds the agent.
        tx.on_commit(self.left_at_work.committed)

    async def end_left_at_work(self) -> int:
        """Ends the running sandboxes of agents that are out of service; returns of how many agents."""
        async with self._sandboxes.db.reader() as tx:
            found = await store.terminated_at_work(tx, PER_RUN)
        for agent_id in found:
            async with self._sandboxes.db.uow() as tx:
                await self._end_sandboxes(tx, agent_id)
        return len(found)

    async def _end(self, tx: Tx, agent_id: str, reason: str) -> None:
        # Sandboxes before their agent, as everybody locks them; after it once more, for a claim that was quicker.
        await self._end_sandboxes(tx, agent_id)
        agent = await self._agents.lock(tx, agent_id)
        if agent is None:
            return
        if await self._end_sandboxes(tx, agent_id):
            agent = await self._agents.lock(tx, agent_id) or agent
        await self._agents.terminate(tx, agent, reason)
        await store.want_revocation(tx, agent_id, agent.organization_id, reason, 0, "agent")

    async def _end_sandboxes(self, tx: Tx, agent_id: str) -> int:
        running = await store.running_of(tx, agent_id)
        for sandbox_id in running:
            await self._sandboxes.end(tx, sandbox_id, LOST)
        return len(running)
