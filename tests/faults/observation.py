"""What the stack holds once it has come to rest: reads of every database, of JetStream and through the public API."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import asyncpg
from google.protobuf.message import DecodeError

from omoios.workflow.events.v1 import events_pb2 as workflow_events
from omoios_local import observe
from omoios_local.ports import SERVICES
from omoios_local.stack import Stack

Row = dict[str, Any]

READS: dict[str, tuple[str, str]] = {
    # Name → (database, statement). Only what the checker needs.
    "projects": ("workflow", "SELECT id, organization_id, name FROM projects"),
    "tickets": ("workflow", "SELECT id, organization_id, spec_id, title, status, version FROM tickets"),
    "tasks": (
        "workflow",
        "SELECT id, organization_id, ticket_id, title, status, attempt, sandbox_id, version, execution_id FROM tasks",
    ),
    "specs": ("workflow", "SELECT id, organization_id, title, version FROM specs"),
    "executions": ("workflow", "SELECT id, organization_id, spec_id, state, reservation_id FROM executions"),
    "sandboxes": ("agents", "SELECT id, task_id, attempt, state FROM sandboxes"),
    "sandbox_events": (
        "agents",
        "SELECT sandbox_id, event_id, count(*) AS number FROM sandbox_events GROUP BY sandbox_id, event_id",
    ),
    "accounts": (
        "billing",
        "SELECT organization_id, available_micro_usd, reserved_micro_usd, spent_micro_usd, workflows_reserved,"
        " workflows_completed FROM billing_accounts",
    ),
    "reservations": (
        "billing",
        "SELECT id, execution_id, organization_id, state, reserved_micro_usd FROM reservations",
    ),
    "ledger": (
        "billing",
        "SELECT organization_id, account, sum(amount_micro_usd)::bigint AS amount FROM ledger_entries"
        " GROUP BY organization_id, account",
    ),
    "unbalanced": (
        "billing",
        "SELECT posting_id, sum(amount_micro_usd)::bigint AS amount FROM ledger_entries"
        " GROUP BY posting_id HAVING sum(amount_micro_usd) <> 0",
    ),
    "costs": ("billing", "SELECT usage_id, organization_id, total_micro_usd FROM cost_records"),
    "memberships": (
        "identity",
        "SELECT coalesce(user_id, agent_id) AS user_id, organization_id FROM organization_memberships"
        " WHERE user_id IS NOT NULL",
    ),
    "monitored_tasks": ("monitoring", "SELECT task_id, status, version FROM replica_tasks"),
    "monitored_tickets": ("monitoring", "SELECT ticket_id, title FROM replica_tickets"),
    "vcs_tickets": ("vcs", "SELECT ticket_id, title FROM replica_tickets"),
}
MOVING: dict[str, tuple[str, str]] = {
    # What goes on → (database, statement): cheap enough to be asked again and again.
    "tasks at work": ("workflow", "SELECT count(*) FROM tasks WHERE status IN ('assigned', 'running')"),
    "executions": (
        "workflow",
        "SELECT count(*) FROM executions WHERE state NOT IN ('completed', 'failed', 'cancelled')",
    ),
    "open reservations": ("billing", "SELECT count(*) FROM reservations WHERE state IN ('held', 'confirmed')"),
}
UNPUBLISHED = "SELECT count(*) FROM outbox WHERE published_at IS NULL"
OUTBOX = (
    "SELECT seq, event_id, subject, aggregate_type, aggregate_id, version, organization_id, payload,"
    " published_at IS NOT NULL AS published FROM outbox ORDER BY seq"
)
LOGGED = "SELECT event_id, subject, count(*) AS number FROM event_log GROUP BY event_id, subject"
REPLICAS = "SELECT user_id, organization_id FROM replica_memberships WHERE active"


@dataclass
class Observation:
    """Rows by the names of `READS`; the rest by service."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    outbox: dict[str, list[Row]] = field(default_factory=dict)
    """Service → its events in the order of `seq`; workflow's task and ticket events carry `from` and `to`."""
    memberships: dict[str, list[Row]] = field(default_factory=dict)
    """Service → its replica of the memberships."""
    lag: list[Row] = field(default_factory=list)
    """Durables with messages that are not delivered or not acknowledged."""
    dead_letters: int = 0
    forgotten: set[Any] = field(default_factory=set)
    """Ids of events that a service said after the backup to which it was put back."""
    api: dict[str, list[str]] = field(default_factory=dict)
    """Tenant → titles of the tickets that the public API lists."""

    def table(self, name: str) -> list[Row]:
        return self.rows.get(name, [])


async def count_moving(stack: Stack) -> list[str]:
    """What goes on, as counts; empty when the stack seems to rest. Raises where a part does not answer."""
    found: dict[str, int] = {}
    for service in SERVICES:
        connection = await asyncpg.connect(stack.postgres.superuser_url(service))
        try:
            for what, (database, statement) in MOVING.items():
                if database == service:
                    found[what] = await connection.fetchval(statement)
            found[f"unpublished events of {service}"] = await connection.fetchval(UNPUBLISHED)
        finally:
            await connection.close()
    durables, _ = await observe.stream_figures(stack)
    found["durables that lag"] = sum(bool(row["pending"] or row["unacknowledged"]) for row in durables)
    return [f"{number} {what}" for what, number in found.items() if number]


async def observe_stack(stack: Stack) -> Observation:
    """Read everything. Raises where a part does not answer: the stack must be at rest and healthy.

    The databases are read one after the other, and some events come while nothing else moves. So the event log is read
    twice: what it holds before the outboxes are read must be in them, and what they hold must be in it afterwards.
    """
    found = Observation()
    found.rows["logged_before"] = await _rows(stack, "monitoring", LOGGED)
    for service in SERVICES:
        connection = await asyncpg.connect(stack.postgres.superuser_url(service))
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                for name, (database, statement) in READS.items():
                    if database == service:
                        found.rows[name] = [dict(row) for row in await connection.fetch(statement)]
                found.outbox[service] = [_event(service, dict(row)) for row in await connection.fetch(OUTBOX)]
                if service != "identity":
                    found.memberships[service] = [dict(row) for row in await connection.fetch(REPLICAS)]
        finally:
            await connection.close()
    found.rows["logged"] = await _rows(stack, "monitoring", LOGGED)
    durables, dead_letters = await observe.stream_figures(stack)
    if dead_letters is None:
        raise ConnectionError("NATS does not answer")
    found.lag = [row for row in durables if row["pending"] or row["unacknowledged"]]
    found.dead_letters = dead_letters
    return found


async def _rows(stack: Stack, database: str, statement: str) -> list[Row]:
    connection = await asyncpg.connect(stack.postgres.superuser_url(database))
    try:
        return [dict(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()


MOVES = {
    "workflow.task.created.v1": workflow_events.TaskCreated,
    "workflow.task.assigned.v1": workflow_events.TaskAssigned,
    "workflow.task.started.v1": workflow_events.TaskStarted,
    "workflow.task.completed.v1": workflow_events.TaskCompleted,
    "workflow.task.failed.v1": workflow_events.TaskFailed,
    "workflow.task.requeued.v1": workflow_events.TaskRequeued,
    "workflow.task.retry_scheduled.v1": workflow_events.TaskRetryScheduled,
    "workflow.task.cancelled.v1": workflow_events.TaskCancelled,
}


def _event(service: str, row: Row) -> Row:
    """The row without its payload, with what the checker needs of it."""
    payload = row.pop("payload")
    if service != "workflow":
        return row
    try:
        if row["subject"] == "workflow.ticket.transitioned.v1":
            moved = workflow_events.TicketTransitioned.FromString(payload)
            return row | {"from": moved.from_status, "to": moved.to_status, "by": moved.initiated_by}
        if row["subject"] in MOVES:
            said = MOVES[row["subject"]].FromString(payload)
            held = {name: getattr(said, name) for name in ("attempt", "sandbox_id") if hasattr(said, name)}
            return row | {"from": said.task.old_status, "to": said.task.status} | held
    except DecodeError as error:
        raise ValueError(f"event {row['event_id']} cannot be read") from error
    return row
