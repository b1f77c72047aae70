"""What this service keeps of others' facts: the project and the title of each ticket (owner: workflow)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Mapped, mapped_column

from omoios.workflow.events.v1 import events_pb2 as workflow_events
from omoios.workflow.v1 import workflow_pb2
from servicekit.db import Base, Database, Tx
from servicekit.events import Consumers, Event
from vcs_service.clients import WorkflowClient
from vcs_service.errors import TICKET_NOT_FOUND

# A ticket made a moment ago may not have been heard of yet.
WAIT_S = 1.0
POLL_S = 0.05


class ReplicaTicket(Base):
    """A ticket as workflow tells it. Its organization and project never change."""

    __tablename__ = "replica_tickets"

    ticket_id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    project_id: Mapped[str]
    title: Mapped[str]


class Tickets:
    """Tickets by id."""

    def __init__(self, db: Database, workflow: WorkflowClient) -> None:
        self._db = db
        self._workflow = workflow

    async def find(self, ticket_id: str) -> ReplicaTicket | None:
        """The ticket, None when it is not known here."""
        async with self._db.reader() as tx:
            query = select(ReplicaTicket).where(ReplicaTicket.ticket_id == ticket_id)
            return (await tx.session.execute(query)).scalar_one_or_none()

    async def get(self, ticket_id: str) -> ReplicaTicket:
        """The ticket; waits up to a second for its event, then asks its owner once.

        Raises `vcs.ticket_not_found`, and 503 while the owner of a ticket that is not known here is away.
        """
        deadline = time.monotonic() + WAIT_S
        while (ticket := await self.find(ticket_id)) is None:
            if time.monotonic() >= deadline:
                return await self._ask(ticket_id)
            await asyncio.sleep(POLL_S)
        return ticket

    async def _ask(self, ticket_id: str) -> ReplicaTicket:
        told = await self._workflow.ticket(ticket_id)
        if told is None:
            raise TICKET_NOT_FOUND()
        async with self._db.uow() as tx:
            await _write(tx, [_row(told)])
        return ReplicaTicket(**_row(told))

    async def rebuild(self) -> int:
        """Reads all tickets from their owner; returns how many."""
        read = 0
        async for page in self._workflow.tickets():
            if page:
                async with self._db.uow() as tx:
                    await _write(tx, sorted((_row(ticket) for ticket in page), key=lambda row: row["ticket_id"]))
            read += len(page)
        return read


def _row(ticket: workflow_pb2.Ticket) -> dict[str, str]:
    return {
        "ticket_id": ticket.id,
        "organization_id": ticket.organization_id,
        "project_id": ticket.project_id,
        "title": ticket.title,
    }


async def _write(tx: Tx, rows: Sequence[dict[str, str]]) -> None:
    """Rows in the order of their ids, so that two writers lock them in one order."""
    statement = upsert(ReplicaTicket).values(list(rows))
    changes = {name: statement.excluded[name] for name in ("organization_id", "project_id", "title")}
    await tx.session.execute(statement.on_conflict_do_update(index_elements=["ticket_id"], set_=changes))


def consumers() -> Consumers:
    """Feeds the replica."""
    c = Consumers("replica")

    @c.on(workflow_events.TicketCreated)
    async def ticket_created(tx: Tx, event: Event[workflow_events.TicketCreated]) -> None:
        body = event.body
        row = {
            "ticket_id": body.ticket_id,
            "organization_id": event.organization_id or "",
            "project_id": body.project_id,
            "title": body.title,
        }
        await _write(tx, [row])

    return c
