"""Typed calls of the services that monitoring reads: workflow, agents and billing. Every call has a deadline."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from omoios.agents.v1 import agents_pb2, agents_pb2_grpc
from omoios.billing.v1 import billing_pb2, billing_pb2_grpc
from omoios.workflow.v1 import workflow_pb2, workflow_pb2_grpc
from servicekit.rpc import RpcChannels

# Reads of one request: a dashboard must not wait for a peer that is slow.
READ_TIMEOUT_S = 1.5
SNAPSHOT_TIMEOUT_S = 10.0
BATCH = 200
PAGE = 500


class WorkflowClient:
    """Snapshots of tasks and tickets."""

    def __init__(self, channels: RpcChannels) -> None:
        self._channels = channels

    @cached_property
    def _stub(self) -> Any:
        return workflow_pb2_grpc.WorkflowServiceStub(self._channels.channel("workflow"))

    async def tasks(self) -> AsyncIterator[Sequence[workflow_pb2.Task]]:
        """All tasks, page by page."""
        token = ""
        while True:
            request = workflow_pb2.ListTaskSnapshotRequest(page_size=PAGE, page_token=token)
            page = await self._stub.ListTaskSnapshot(request, timeout=SNAPSHOT_TIMEOUT_S)
            yield page.tasks
            token = page.next_page_token
            if not token:
                return

    async def tickets(self) -> AsyncIterator[Sequence[workflow_pb2.Ticket]]:
        """All tickets, page by page."""
        token = ""
        while True:
            request = workflow_pb2.ListTicketSnapshotRequest(page_size=PAGE, page_token=token)
            page = await self._stub.ListTicketSnapshot(request, timeout=SNAPSHOT_TIMEOUT_S)
            yield page.tickets
            token = page.next_page_token
            if not token:
                return


class AgentsClient:
    """Agents and sandboxes."""

    def __init__(self, channels: RpcChannels) -> None:
        self._channels = channels

    @cached_property
    def _stub(self) -> Any:
        return agents_pb2_grpc.AgentsServiceStub(self._channels.channel("agents"))

    async def heartbeats(self, agent_ids: Sequence[str]) -> dict[str, datetime]:
        """When each of these agents was last heard; those never heard are left out."""
        found: dict[str, datetime] = {}
        for start in range(0, len(agent_ids), BATCH):
            request = agents_pb2.BatchGetAgentsRequest(ids=agent_ids[start : start + BATCH])
            answer = await self._stub.BatchGetAgents(request, timeout=READ_TIMEOUT_S)
            for agent in answer.agents:
                if agent.HasField("last_heartbeat"):
                    found[agent.id] = agent.last_heartbeat.ToDatetime(tzinfo=UTC)
        return found

    async def agents(self) -> AsyncIterator[Sequence[agents_pb2.Agent]]:
        """All agents, page by page."""
        token = ""
        while True:
            request = agents_pb2.ListAgentSnapshotRequest(page_size=PAGE, page_token=token)
            page = await self._stub.ListAgentSnapshot(request, timeout=SNAPSHOT_TIMEOUT_S)
            yield page.agents
            token = page.next_page_token
            if not token:
                return

    async def sandboxes(self, sandbox_ids: Sequence[str]) -> Sequence[agents_pb2.Sandbox]:
        """How these sandboxes stand; unknown ones are left out. At most 200 ids."""
        request = agents_pb2.BatchGetSandboxesRequest(ids=sandbox_ids)
        answer = await self._stub.BatchGetSandboxes(request, timeout=SNAPSHOT_TIMEOUT_S)
        sandboxes: Sequence[agents_pb2.Sandbox] = answer.sandboxes
        return sandboxes


class BillingClient:
    """Costs."""

    def __init__(self, channels: RpcChannels) -> None:
        self._channels = channels

    @cached_property
    def _stub(self) -> Any:
        return billing_pb2_grpc.BillingServiceStub(self._channels.channel("billing"))

    async def costs(self, organization_ids: Sequence[str], since: datetime) -> dict[str, int]:
        """Micro-USD spent by each organization since a moment."""
        moment = Timestamp()
        moment.FromDatetime(since)
        request = billing_pb2.GetCostSummaryRequest(organization_ids=organization_ids, since=moment)
        answer = await self._stub.GetCostSummary(request, timeout=READ_TIMEOUT_S)
        return {item.organization_id: item.total_micro_usd for item in answer.costs}
