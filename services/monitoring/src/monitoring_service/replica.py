"""What this service keeps of others' facts: tasks and tickets (owner: workflow), agents and sandboxes (owner: agents).

Every write is a merge that does not depend on the order of arrival: the newest version decides, and what only one event
tells (when a task was made, when its last attempt began) is kept whichever comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from monitoring_service.clients import BATCH, AgentsClient, WorkflowClient
from omoios.agents.events.v1 import events_pb2 as agents
from omoios.workflow.events.v1 import events_pb2 as workflow
from omoios.workflow.v1 import workflow_pb2
from servicekit.clock import utc_now
from servicekit.db import Base, Database, Tx
from servicekit.events import Consumers, Event


class ReplicaTask(Base):
    """A task as workflow's events tell it. `started_at`: of its last attempt."""

    __tablename__ = "replica_tasks"
    __table_args__ = (
        Index("ix_replica_tasks_status", "organization_id", "status", "phase_id"),
        Index("ix_replica_tasks_completed", "organization_id", "completed_at"),
    )

    task_id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    project_id: Mapped[str]
    ticket_id: Mapped[str]
    phase_id: Mapped[str]
    priority: Mapped[str]
    status: Mapped[str]
    version: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]


class ReplicaTicket(Base):
    """A ticket as workflow's events tell it. Title and priority are unknown until its creation was heard of.

    `blocker`: what blocks it, empty while nothing does.
    """

    __tablename__ = "replica_tickets"

    ticket_id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    project_id: Mapped[str]
    title: Mapped[str | None]
    priority: Mapped[str | None]
    priority_version: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    is_blocked: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    blocked_version: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    blocker: Mapped[str] = mapped_column(server_default=text("''"))


class ReplicaAgent(Base):
    """An agent as the events of agents tell it.

    `health_order`: place of the last word about its heartbeats. An agent that goes silent does so at the version that
    its last return had, so that silence comes after the return of the same version.
    """

    __tablename__ = "replica_agents"
    __table_args__ = (Index("ix_replica_agents_organization", "organization_id", "status"),)

    agent_id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    agent_type: Mapped[str | None]
    status: Mapped[str | None]
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    is_stale: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    missed_heartbeats: Mapped[int] = mapped_column(server_default=text("0"))
    health_order: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))


class ReplicaSandbox(Base):
    """A sandbox; once ended it stays so."""

    __tablename__ = "replica_sandboxes"
    __table_args__ = (Index("ix_replica_sandboxes_open", "organization_id", postgresql_where=text("ended_at IS NULL")),)

    sandbox_id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    project_id: Mapped[str]
    task_id: Mapped[str]
    agent_id: Mapped[str]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None]


_TASK = """
INSERT INTO replica_tasks AS t (task_id, organization_id, project_id, ticket_id, phase_id, priority, status, version,
    created_at, started_at, completed_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (task_id) DO UPDATE SET
    phase_id = CASE WHEN excluded.version > t.version THEN excluded.phase_id ELSE t.phase_id END,
    priority = CASE WHEN excluded.version > t.version THEN excluded.priority ELSE t.priority END,
    status = CASE WHEN excluded.version > t.version THEN excluded.status ELSE t.status END,
    completed_at = CASE
        WHEN CASE WHEN excluded.version > t.version THEN excluded.status ELSE t.status END = 'completed'
        THEN coalesce(excluded.completed_at, t.completed_at)
    END,
    created_at = coalesce(t.created_at, excluded.created_at),
    started_at = greatest(t.started_at, excluded.started_at),
    version = greatest(t.version, excluded.version)
"""
_SANDBOX = """
INSERT INTO replica_sandboxes AS s (sandbox_id, organization_id, project_id, task_id, agent_id, started_at, ended_at,
    end_reason)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (sandbox_id) DO UPDATE SET
    started_at = coalesce(s.started_at, excluded.started_at),
    ended_at = coalesce(s.ended_at, excluded.ended_at),
    end_reason = coalesce(s.end_reason, excluded.end_reason)
"""
_AGENT = """
INSERT INTO replica_agents AS a (agent_id, organization_id, agent_type, status, version)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (agent_id) DO UPDATE SET
    agent_type = coalesce(a.agent_type, excluded.agent_type),
    status = CASE WHEN excluded.version > a.version THEN excluded.status ELSE a.status END,
    version = greatest(a.version, excluded.version)
"""
_AGENT_HEALTH = """
INSERT INTO replica_agents AS a (agent_id, organization_id, is_stale, missed_heartbeats, health_order)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (agent_id) DO UPDATE SET
    is_stale = excluded.is_stale, missed_heartbeats = excluded.missed_heartbeats, health_order = excluded.health_order
WHERE excluded.health_order > a.health_order
RETURNING agent_type
"""
_TICKET = """
INSERT INTO replica_tickets AS t (ticket_id, organization_id, project_id, title, priority, priority_version)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (ticket_id) DO UPDATE SET
    title = coalesce(t.title, excluded.title),
    priority = CASE WHEN excluded.priority_version > t.priority_version THEN excluded.priority ELSE t.priority END,
    priority_version = greatest(t.priority_version, excluded.priority_version)
RETURNING organization_id, project_id, title, priority, is_blocked, blocker
"""
_TICKET_BLOCKED = """
INSERT INTO replica_tickets AS t (ticket_id, organization_id, project_id, is_blocked, blocked_version, blocker)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (ticket_id) DO UPDATE SET is_blocked = excluded.is_blocked, blocked_version = excluded.blocked_version,
    blocker = excluded.blocker
WHERE excluded.blocked_version > t.blocked_version
RETURNING organization_id, project_id, title, priority, is_blocked, blocker
"""


@dataclass(frozen=True, slots=True)
class TicketState:
    """What is known of a ticket now."""

    organization_id: str
    project_id: str
    title: str | None
    priority: str | None
    is_blocked: bool
    blocker: str


TaskRow = tuple[
    str, str, str, str, str, str, str, int, datetime | None, datetime | None, datetime | None
]  # In the order of the columns.


async def write_tasks(tx: Tx, rows: Sequence[TaskRow]) -> None:
    """Merges tasks; sorted, so that two writers lock rows in one order."""
    await (await tx.connection()).executemany(_TASK, sorted(rows, key=lambda row: (row[0], row[7])))


async def write_sandboxes(tx: Tx, rows: Sequence[tuple[Any, ...]]) -> None:
    """Merges sandboxes: id, organization, project, task, agent, started, ended, reason."""
    await (await tx.connection()).executemany(_SANDBOX, sorted(rows, key=lambda row: str(row[0])))


async def write_agent(
    tx: Tx, agent_id: str, organization_id: str, agent_type: str | None, status: str, version: int
) -> None:
    """Merges what an agent is."""
    await (await tx.connection()).execute(_AGENT, agent_id, organization_id, agent_type, status, version)


async def write_agent_health(tx: Tx, agent_id: str, organization_id: str, *, missed: int, version: int) -> bool:
    """Notes that an agent fell silent (`missed` > 0) or is heard again; False when a later word is known."""
    order = 2 * version + (1 if missed else 0)
    row = await (await tx.connection()).fetchrow(_AGENT_HEALTH, agent_id, organization_id, missed > 0, missed, order)
    return row is not None


async def write_ticket(
    tx: Tx, ticket_id: str, organization_id: str, project_id: str, title: str | None, priority: str, version: int
) -> TicketState:
    """Merges title and priority of a ticket; returns how it stands then."""
    connection = await tx.connection()
    row = await connection.fetchrow(_TICKET, ticket_id, organization_id, project_id, title, priority, version)
    return TicketState(*row)


async def write_ticket_blocked(
    tx: Tx, ticket_id: str, organization_id: str, project_id: str, *, blocked: bool, version: int, blocker: str = ""
) -> TicketState | None:
    """Notes that a ticket is blocked or not; returns how it stands then, None when a later word is known."""
    row = await (await tx.connection()).fetchrow(
        _TICKET_BLOCKED, ticket_id, organization_id, project_id, blocked, version, blocker
    )
    return None if row is None else TicketState(*row)


def consumers() -> Consumers:
    """Feeds tasks and sandboxes; agents and tickets are fed where something follows from them."""
    c = Consumers("replica")

    @c.on_batch(
        workflow.TaskCreated,
        workflow.TaskUpdated,
        workflow.TaskAssigned,
        workflow.TaskStarted,
        workflow.TaskCompleted,
        workflow.TaskFailed,
        workflow.TaskRetryScheduled,
        workflow.TaskRequeued,
        workflow.TaskCancelled,
    )
    async def tasks_changed(tx: Tx, events: Sequence[Event[Any]]) -> None:
        await write_tasks(tx, [_task_row(event) for event in events])

    @c.on_batch(agents.SandboxStarted, agents.SandboxEnded)
    async def sandboxes_changed(tx: Tx, events: Sequence[Event[Any]]) -> None:
        await write_sandboxes(tx, [_sandbox_row(event) for event in events])

    return c


def _task_row(event: Event[Any]) -> TaskRow:
    task = event.body.task
    return (
        task.task_id,
        event.organization_id or "",
        task.project_id,
        task.ticket_id,
        task.phase_id,
        task.priority,
        task.status,
        event.version,
        event.time if isinstance(event.body, workflow.TaskCreated) else None,
        event.time if isinstance(event.body, workflow.TaskStarted) else None,
        event.time if isinstance(event.body, workflow.TaskCompleted) else None,
    )


def _sandbox_row(event: Event[Any]) -> tuple[Any, ...]:
    body = event.body
    ended = isinstance(body, agents.SandboxEnded)
    return (
        body.sandbox_id,
        event.organization_id or "",
        body.project_id,
        body.task_id,
        body.agent_id,
        None if ended else event.time,
        event.time if ended else None,
        body.reason if ended else None,
    )


class Rebuild:
    """Reads the owners' snapshots; what events bring meanwhile is newer and stays."""

    def __init__(self, db: Database, workflow_client: WorkflowClient, agents_client: AgentsClient) -> None:
        self._db = db
        self._workflow = workflow_client
        self._agents = agents_client

    async def tasks(self) -> int:
        """All tasks; returns how many."""
        count = 0
        async for page in self._workflow.tasks():
            async with self._db.uow() as tx:
                await write_tasks(tx, [_snapshot_row(task) for task in page])
            count += len(page)
        return count

    async def tickets(self) -> int:
        """Title and priority of all tickets; returns how many."""
        count = 0
        async for page in self._workflow.tickets():
            async with self._db.uow() as tx:
                for ticket in page:
                    await write_ticket(
                        tx,
                        ticket.id,
                        ticket.organization_id,
                        ticket.project_id,
                        ticket.title,
                        ticket.priority,
                        ticket.version,
                    )
            count += len(page)
        return count

    async def sandboxes(self) -> int:
        """The sandboxes that are open here or hold a task now; returns how many are known to agents."""
        async with self._db.reader() as tx:
            rows = await (await tx.connection()).fetch(
                "SELECT sandbox_id FROM replica_sandboxes WHERE ended_at IS NULL"
            )
        wanted = {row[0] for row in rows}
        async for page in self._workflow.tasks():
            wanted |= {task.sandbox_id for task in page if task.sandbox_id and task.status in ("assigned", "running")}
        count = 0
        ordered = sorted(wanted)
        for start in range(0, len(ordered), BATCH):
            found = await self._agents.sandboxes(ordered[start : start + BATCH])
            async with self._db.uow() as tx:
                await write_sandboxes(tx, [_known_sandbox(item) for item in found])
            count += len(found)
        return count


def _moment(message: Any, name: str) -> datetime | None:
    return getattr(message, name).ToDatetime(tzinfo=UTC) if message.HasField(name) else None


def _snapshot_row(task: workflow_pb2.Task) -> TaskRow:
    return (
        task.id,
        task.organization_id,
        task.project_id,
        task.ticket_id,
        task.phase_id,
        task.priority,
        task.status,
        task.version,
        _moment(task, "created_at"),
        _moment(task, "started_at"),
        _moment(task, "completed_at"),
    )


def _known_sandbox(sandbox: Any) -> tuple[Any, ...]:
    ended = sandbox.state == "ended"
    return (
        sandbox.id,
        sandbox.organization_id,
        sandbox.project_id,
        sandbox.task_id,
        sandbox.agent_id,
        None,
        (_moment(sandbox, "last_event_at") or utc_now()) if ended else None,
        "lost" if ended else None,
    )
