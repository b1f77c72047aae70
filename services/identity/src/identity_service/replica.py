"""What this service keeps of others' facts: projects (owner: workflow), repositories (vcs), plans (billing).

The newest version decides, whichever arrives first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from identity_service.clients import PAGE, SnapshotClient
from omoios.billing.events.v1 import events_pb2 as billing
from omoios.billing.v1 import billing_pb2
from omoios.vcs.events.v1 import events_pb2 as vcs
from omoios.vcs.v1 import vcs_pb2
from omoios.workflow.events.v1 import events_pb2 as workflow
from servicekit.db import Base, Database, Tx
from servicekit.events import Consumers, Event


class ReplicaProject(Base):
    """A project of an organization."""

    __tablename__ = "replica_projects"
    __table_args__ = (Index("ix_replica_projects_organization", "organization_id", "project_id"),)

    project_id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    status: Mapped[str]
    version: Mapped[int] = mapped_column(BigInteger)


class ReplicaRepository(Base):
    """The repository of a project, once it was mirrored."""

    __tablename__ = "replica_repositories"
    __table_args__ = (Index("ix_replica_repositories_organization", "organization_id", "project_id"),)

    project_id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    url: Mapped[str]
    github_owner: Mapped[str | None]
    github_repo: Mapped[str | None]
    version: Mapped[int] = mapped_column(BigInteger)


class ReplicaPlan(Base):
    """The plan of an organization, and the sandbox time that it used in the month that ends at `period_ends_at`."""

    __tablename__ = "replica_plans"

    organization_id: Mapped[str] = mapped_column(primary_key=True)
    tier: Mapped[str]
    sandbox_ms_used: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    period_ends_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(BigInteger)


_PROJECT = """
INSERT INTO replica_projects AS p (project_id, organization_id, status, version) VALUES ($1, $2, $3, $4)
ON CONFLICT (project_id) DO UPDATE SET
    organization_id = excluded.organization_id, status = excluded.status, version = excluded.version
WHERE excluded.version > p.version
"""
_REPOSITORY = """
INSERT INTO replica_repositories AS r (project_id, organization_id, url, github_owner, github_repo, version)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (project_id) DO UPDATE SET
    organization_id = excluded.organization_id, url = excluded.url, github_owner = excluded.github_owner,
    github_repo = excluded.github_repo, version = excluded.version
WHERE excluded.version > r.version
"""
_PLAN = """
INSERT INTO replica_plans AS p (organization_id, tier, sandbox_ms_used, period_ends_at, version)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (organization_id) DO UPDATE SET
    tier = excluded.tier, sandbox_ms_used = excluded.sandbox_ms_used, period_ends_at = excluded.period_ends_at,
    version = excluded.version
WHERE excluded.version > p.version
"""


async def _write(tx: Tx, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Sorted, so that two writers lock rows in one order."""
    await (await tx.connection()).executemany(statement, sorted(rows, key=lambda row: str(row[0])))


def consumers() -> Consumers:
    """Feeds the three tables."""
    c = Consumers("replica")

    @c.on(workflow.ProjectCreated)
    async def project_created(tx: Tx, event: Event[workflow.ProjectCreated]) -> None:
        await _write(tx, _PROJECT, [(event.body.project_id, event.organization_id or "", "active", event.version)])

    @c.on(workflow.ProjectUpdated)
    async def project_updated(tx: Tx, event: Event[workflow.ProjectUpdated]) -> None:
        row = (event.body.project_id, event.organization_id or "", event.body.status, event.version)
        await _write(tx, _PROJECT, [row])

    @c.on(workflow.ProjectArchived)
    async def project_archived(tx: Tx, event: Event[workflow.ProjectArchived]) -> None:
        await _write(tx, _PROJECT, [(event.body.project_id, event.organization_id or "", "archived", event.version)])

    @c.on(vcs.RepositoryReady)
    async def repository_ready(tx: Tx, event: Event[vcs.RepositoryReady]) -> None:
        body = event.body
        row = (
            body.project_id,
            event.organization_id or "",
            body.url,
            body.github_owner or None,
            body.github_repo or None,
            event.version,
        )
        await _write(tx, _REPOSITORY, [row])

    @c.on(billing.AccountCreated)
    async def account_created(tx: Tx, event: Event[billing.AccountCreated]) -> None:
        await _write(tx, _PLAN, [(event.organization_id or "", event.body.tier, 0, None, event.version)])

    @c.on(billing.AccountChanged)
    async def account_changed(tx: Tx, event: Event[billing.AccountChanged]) -> None:
        body = event.body
        ends_at = body.period_ends_at.ToDatetime(tzinfo=UTC)
        row = (event.organization_id or "", body.tier, body.sandbox_milliseconds_used, ends_at, event.version)
        await _write(tx, _PLAN, [row])

    return c


def _plan(item: billing_pb2.Limits) -> tuple[Any, ...]:
    ends_at = item.period_ends_at.ToDatetime(tzinfo=UTC) if item.HasField("period_ends_at") else None
    return (item.organization_id, item.tier, item.sandbox_milliseconds_used, ends_at, item.version)


class Rebuild:
    """Reads the owners' snapshots; what events bring meanwhile is newer and stays."""

    def __init__(self, db: Database, client: SnapshotClient) -> None:
        self._db = db
        self._client = client

    async def projects(self) -> int:
        """All projects; returns how many were read."""
        read = 0
        async for page in self._client.projects():
            rows = [(item.id, item.organization_id, item.status, item.version) for item in page]
            async with self._db.uow() as tx:
                await _write(tx, _PROJECT, rows)
            read += len(rows)
        return read

    async def repositories(self) -> int:
        """All repositories that were mirrored; returns how many were read."""
        read = 0
        async for page in self._client.repositories():
            rows = [
                (
                    item.project_id,
                    item.organization_id,
                    item.url,
                    item.github_owner or None,
                    item.github_repo or None,
                    item.version,
                )
                for item in page
                if item.state == vcs_pb2.REPOSITORY_STATE_READY
            ]
            async with self._db.uow() as tx:
                await _write(tx, _REPOSITORY, rows)
            read += len(page)
        return read

    async def plans(self) -> int:
        """The plans of all organizations; returns how many were read."""
        read, after = 0, ""
        while True:
            async with self._db.reader() as tx:
                connection = await tx.connection()
                ids = await connection.fetch(
                    "SELECT id FROM organizations WHERE id > $1 ORDER BY id LIMIT $2", after, PAGE
                )
            if not ids:
                return read
            plans = await self._client.plans([row["id"] for row in ids])
            async with self._db.uow() as tx:
                await _write(tx, _PLAN, [_plan(item) for item in plans])
            read += len(plans)
            after = ids[-1]["id"]
