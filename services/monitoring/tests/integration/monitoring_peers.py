"""The services that monitoring reads, with what a test gives them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from omoios.agents.v1 import agents_pb2, agents_pb2_grpc
from omoios.billing.v1 import billing_pb2, billing_pb2_grpc
from omoios.workflow.v1 import workflow_pb2, workflow_pb2_grpc
from servicekit.errors import UNAVAILABLE


def moment(seconds_ago: float = 0.0) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime.now(UTC) - timedelta(seconds=seconds_ago))
    return stamp


class Workflow(workflow_pb2_grpc.WorkflowServiceServicer):
    """Serves its lists two at a time."""

    def __init__(self) -> None:
        self.task_list: list[workflow_pb2.Task] = []
        self.ticket_list: list[workflow_pb2.Ticket] = []

    async def ListTaskSnapshot(self, request: Any, context: Any) -> workflow_pb2.ListTaskSnapshotResponse:
        page, token = paged(self.task_list, request.page_token)
        return workflow_pb2.ListTaskSnapshotResponse(tasks=page, next_page_token=token)

    async def ListTicketSnapshot(self, request: Any, context: Any) -> workflow_pb2.ListTicketSnapshotResponse:
        page, token = paged(self.ticket_list, request.page_token)
        return workflow_pb2.ListTicketSnapshotResponse(tickets=page, next_page_token=token)


class Agents(agents_pb2_grpc.AgentsServiceServicer):
    """Serves its lists; `down` makes it refuse."""

    def __init__(self) -> None:
        self.agent_list: list[agents_pb2.Agent] = []
        self.sandbox_list: list[agents_pb2.Sandbox] = []
        self.down = False

    async def BatchGetAgents(self, request: Any, context: Any) -> agents_pb2.BatchGetAgentsResponse:
        if self.down:
            raise UNAVAILABLE()
        return agents_pb2.BatchGetAgentsResponse(agents=[item for item in self.agent_list if item.id in request.ids])

    async def BatchGetSandboxes(self, request: Any, context: Any) -> agents_pb2.BatchGetSandboxesResponse:
        found = [item for item in self.sandbox_list if item.id in request.ids]
        return agents_pb2.BatchGetSandboxesResponse(sandboxes=found)

    async def ListAgentSnapshot(self, request: Any, context: Any) -> agents_pb2.ListAgentSnapshotResponse:
        page, token = paged(self.agent_list, request.page_token)
        return agents_pb2.ListAgentSnapshotResponse(agents=page, next_page_token=token)


class Billing(billing_pb2_grpc.BillingServiceServicer):
    """Answers with what each organization spent."""

    def __init__(self) -> None:
        self.spent: dict[str, int] = {}

    async def GetCostSummary(self, request: Any, context: Any) -> billing_pb2.GetCostSummaryResponse:
        return billing_pb2.GetCostSummaryResponse(
            costs=[
                billing_pb2.OrganizationCost(organization_id=item, total_micro_usd=self.spent.get(item, 0))
                for item in request.organization_ids
            ]
        )


def paged(items: list[Any], token: str) -> tuple[list[Any], str]:
    start = int(token or 0)
    return items[start : start + 2], str(start + 2) if start + 2 < len(items) else ""
