"""Typed calls of workflow, for the replica of tickets. Every call has a deadline."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import cached_property
from typing import Any

from omoios.workflow.v1 import workflow_pb2, workflow_pb2_grpc
from servicekit.rpc import RpcChannels

# A request waits for it.
READ_TIMEOUT_S = 1.5
SNAPSHOT_TIMEOUT_S = 10.0
PAGE = 500


class WorkflowClient:
    """Tickets as their owner has them."""

    def __init__(self, channels: RpcChannels) -> None:
        self._channels = channels

    @cached_property
    def _stub(self) -> Any:
        return workflow_pb2_grpc.WorkflowServiceStub(self._channels.channel("workflow"))

    async def ticket(self, ticket_id: str) -> workflow_pb2.Ticket | None:
        """One ticket, None when there is none. Raises 503 while workflow is away."""
        request = workflow_pb2.BatchGetTicketsRequest(ids=[ticket_id])
        found = (await self._stub.BatchGetTickets(request, timeout=READ_TIMEOUT_S)).tickets
        return found[0] if found else None

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
