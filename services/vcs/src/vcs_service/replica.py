"""What this service keeps of others' facts: the project and the title of each ticket (owner: workflow)."""

from __future__ import annotations

import asyncio
import time

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Mapped, mapped_column

from omoios.workflow.events.v1 import events_pb2 as workflow_events
from servicekit.db import Base, Database, Tx
from servicekit.events import Consumers, Event
from vcs_service.errors import TICKET_NOT_FOUND

# A ticket made a moment ago may not have been heard of yet.
WAIT_S = 1.0
POLL_S = 0.05


class ReplicaTicket(Base):
    """A ticket as workflow's events tell it."""

    __tablename__ = "replica_tickets"

    ticket_id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    project_id: Mapped[str]
    title: Mapped[str]


class Tickets:
    """Tickets by id."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def find(self, ticket_id: str) -> ReplicaTicket | None:
        """The ticket, None when it is not known here."""
        async with self._db.reader() as tx:
            query = select(ReplicaTicket).where(ReplicaTicket.ticket_id == ticket_id)
            return (await tx.session.execute(query)).scalar_one_or_none()

    async def get(self, ticket_id: str) -> ReplicaTicket:
        """The ticket; waits up to a second for its event. Raises `vcs.ticket_not_found`."""
        deadline = time.monotonic() + WAIT_S
        while (ticket := await self.find(ticket_id)) is None:
            if time.monotonic() >= deadline:
                raise TICKET_NOT_FOUND()
            await asyncio.sleep(POLL_S)
        return ticket


def consumers() -> Consumers:
    """Feeds the replica."""
    c = Consumers("replica")

    @c.on(workflow_events.TicketCreated)
    async def ticket_created(tx: Tx, event: Event[workflow_events.TicketCreated]) -> None:
        body = event.body
        values = {
            "organization_id": event.organization_id or "",
            "project_id": body.project_id,
            "title": body.title,
        }
        statement = upsert(ReplicaTicket).values(ticket_id=body.ticket_id, **values)
        await tx.session.execute(statement.on_conflict_do_update(index_elements=["ticket_id"], set_=values))

    return c
