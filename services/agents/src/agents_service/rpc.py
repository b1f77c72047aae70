"""The gRPC servicer, composed of the rooms' services."""

from __future__ import annotations

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from agents_service.agents.service import AgentService
from agents_service.ingest.reading_service import EventReader
from agents_service.sandboxes.messages_service import MessageService, ServiceMessage
from agents_service.sandboxes.service import SandboxService
from omoios.agents.v1 import agents_pb2 as pb
from omoios.agents.v1 import agents_pb2_grpc
from servicekit.rpc import RpcServicer

BATCH_MAX = 500
SNAPSHOT_PAGE = 500


class AgentsServicer(agents_pb2_grpc.AgentsServiceServicer):
    """Agents and sandboxes for other services."""

    def __init__(
        self, agents: AgentService, sandboxes: SandboxService, messages: MessageService, reader: EventReader
    ) -> None:
        self.agents = agents
        self.sandboxes = sandboxes
        self.messages = messages
        self.reader = reader

    async def BatchGetAgents(self, request: pb.BatchGetAgentsRequest, context: Any) -> pb.BatchGetAgentsResponse:
        """Agents that exist among the ids."""
        rows = await self.agents.batch(request.ids[:BATCH_MAX])
        return pb.BatchGetAgentsResponse(agents=[_agent(row) for row in rows])

    async def BatchGetSandboxes(
        self, request: pb.BatchGetSandboxesRequest, context: Any
    ) -> pb.BatchGetSandboxesResponse:
        """Sandboxes that exist among the ids."""
        ids = list(request.ids[:BATCH_MAX])
        streams = await self.reader.streams(ids)
        return pb.BatchGetSandboxesResponse(
            sandboxes=[
                pb.Sandbox(
                    id=row.id,
                    organization_id=row.organization_id,
                    project_id=row.project_id,
                    task_id=row.task_id,
                    attempt=row.attempt,
                    agent_id=row.agent_id,
                    state=row.state,
                    last_event_at=_stamp(streams[row.id].last_event_at if row.id in streams else None),
                )
                for row in await self.sandboxes.batch(ids)
            ]
        )

    async def SendMessages(self, request: pb.SendMessagesRequest, context: Any) -> pb.SendMessagesResponse:
        """Queues messages; those for ended or unknown sandboxes are left out of the answer."""
        accepted = await self.messages.send(
            [
                ServiceMessage(item.message_id, item.sandbox_id, item.content, item.message_type, item.sender_id)
                for item in request.messages[:BATCH_MAX]
            ]
        )
        return pb.SendMessagesResponse(accepted_message_ids=accepted)

    async def EndSandboxes(self, request: pb.EndSandboxesRequest, context: Any) -> pb.EndSandboxesResponse:
        """Ends sandboxes."""
        ended = await self.sandboxes.end_many(request.sandbox_ids[:BATCH_MAX], request.reason)
        return pb.EndSandboxesResponse(ended_sandbox_ids=ended)

    async def GetAgentSummary(self, request: pb.GetAgentSummaryRequest, context: Any) -> pb.GetAgentSummaryResponse:
        """Counts by status, per organization."""
        organizations = list(request.organization_ids[:BATCH_MAX])
        agents = await self.agents.status_counts(organizations)
        sandboxes = await self.sandboxes.state_counts(organizations)
        return pb.GetAgentSummaryResponse(agents=_counts(agents), sandboxes=_counts(sandboxes))

    async def ResolveResources(self, request: pb.ResolveResourcesRequest, context: Any) -> pb.ResolveResourcesResponse:
        """Organizations of agents and sandboxes."""
        wanted: dict[str, list[str]] = {"agent": [], "sandbox": []}
        for reference in request.references[:BATCH_MAX]:
            wanted.get(reference.resource_type, []).append(reference.resource_id)
        found: list[pb.ResolvedResource] = []
        for kind, rows in (
            ("agent", await self.agents.batch(wanted["agent"]) if wanted["agent"] else []),
            ("sandbox", await self.sandboxes.batch(wanted["sandbox"]) if wanted["sandbox"] else []),
        ):
            found += [
                pb.ResolvedResource(resource_type=kind, resource_id=row.id, organization_id=row.organization_id)
                for row in rows
            ]
        return pb.ResolveResourcesResponse(resources=found)

    async def ListAgentSnapshot(
        self, request: pb.ListAgentSnapshotRequest, context: Any
    ) -> pb.ListAgentSnapshotResponse:
        """All agents, a page at a time, by id."""
        size = min(max(request.page_size, 1), SNAPSHOT_PAGE) if request.page_size else SNAPSHOT_PAGE
        rows = await self.agents.snapshot(request.page_token, size)
        following = rows[-1].id if len(rows) == size else ""
        return pb.ListAgentSnapshotResponse(agents=[_agent(row) for row in rows], next_page_token=following)


def servicer(
    agents: AgentService, sandboxes: SandboxService, messages: MessageService, reader: EventReader
) -> RpcServicer:
    """The servicer as the host takes it."""
    return RpcServicer(
        agents_pb2_grpc.add_AgentsServiceServicer_to_server,
        AgentsServicer(agents, sandboxes, messages, reader),
        "omoios.agents.v1.AgentsService",
    )


def _agent(row: Any) -> pb.Agent:
    return pb.Agent(
        id=row.id,
        organization_id=row.organization_id,
        agent_type=row.agent_type,
        phase_id=row.phase_id or "",
        status=row.status,
        capabilities=row.capabilities,
        capacity=row.capacity,
        health_status=row.health_status,
        last_heartbeat=_stamp(row.last_heartbeat),
        created_at=_stamp(row.created_at),
        version=row.version,
    )


def _stamp(moment: Any) -> Timestamp | None:
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def _counts(rows: Any) -> list[pb.AgentCount]:
    return [pb.AgentCount(organization_id=row[0], status=row[1], count=row[2]) for row in rows]
