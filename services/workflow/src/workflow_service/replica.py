"""What this service keeps of others' facts: the limits that an organization set for itself (owner: identity).

The newest version decides, whichever arrives first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy import BigInteger, Float, Integer
from sqlalchemy.orm import Mapped, mapped_column

from omoios.identity.events.v1 import events_pb2 as events
from omoios.identity.v1 import identity_pb2
from servicekit.db import Base, Database, Tx
from servicekit.events import Consumers, Event
from workflow_service.clients import IdentityClient


class ReplicaOrganization(Base):
    """How many agents of an organization may work at once, and for how many hours a month. None: no limit."""

    __tablename__ = "replica_organizations"

    organization_id: Mapped[str] = mapped_column(primary_key=True)
    max_concurrent_agents: Mapped[int | None] = mapped_column(Integer)
    max_agent_runtime_hours: Mapped[float | None] = mapped_column(Float)
    version: Mapped[int] = mapped_column(BigInteger)


_WRITE = """
INSERT INTO replica_organizations AS o (organization_id, max_concurrent_agents, max_agent_runtime_hours, version)
VALUES ($1, $2, $3, $4)
ON CONFLICT (organization_id) DO UPDATE SET
    max_concurrent_agents = excluded.max_concurrent_agents,
    max_agent_runtime_hours = excluded.max_agent_runtime_hours, version = excluded.version
WHERE excluded.version > o.version
    -- What an older release of identity told has no limits: a snapshot of the same version brings them.
    OR excluded.version = o.version AND o.max_concurrent_agents IS NULL
"""

Told = events.OrganizationCreated | events.OrganizationUpdated | identity_pb2.Organization


LimitsChanged = Callable[[Tx, str], Awaitable[None]]
"""What is done in the transaction in which an organization got other limits than it had."""

_LIMITS = "SELECT max_concurrent_agents, max_agent_runtime_hours FROM replica_organizations WHERE organization_id = $1"


async def _write(tx: Tx, rows: Sequence[tuple[str, int, Told]]) -> None:
    """(id, version, what was told), sorted, so that two writers lock rows in one order."""
    values = [
        (
            organization_id,
            told.max_concurrent_agents if told.HasField("max_concurrent_agents") else None,
            told.max_agent_runtime_hours if told.HasField("max_agent_runtime_hours") else None,
            version,
        )
        for organization_id, version, told in sorted(rows, key=lambda row: row[0])
    ]
    await (await tx.connection()).executemany(_WRITE, values)


def consumers(limits_changed: LimitsChanged) -> Consumers:
    """Feeds the table."""
    c = Consumers("replica")

    @c.on(events.OrganizationCreated)
    async def organization_created(tx: Tx, event: Event[events.OrganizationCreated]) -> None:
        await _write(tx, [(event.body.organization_id, event.version, event.body)])

    @c.on(events.OrganizationUpdated)
    async def organization_updated(tx: Tx, event: Event[events.OrganizationUpdated]) -> None:
        organization_id = event.body.organization_id
        connection = await tx.connection()
        before = await connection.fetchrow(_LIMITS + " FOR UPDATE", organization_id)
        await _write(tx, [(organization_id, event.version, event.body)])
        if before is not None and before != await connection.fetchrow(_LIMITS, organization_id):
            await limits_changed(tx, organization_id)

    return c


class Rebuild:
    """Reads the owner's snapshot; what events bring meanwhile is newer and stays."""

    def __init__(self, db: Database, client: IdentityClient) -> None:
        self._db = db
        self._client = client

    async def organizations(self) -> int:
        """All organizations; returns how many were read."""
        read = 0
        async for page in self._client.organizations():
            async with self._db.uow() as tx:
                await _write(tx, [(item.id, item.version, item) for item in page])
            read += len(page)
        return read
