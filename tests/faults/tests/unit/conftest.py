"""A history and an observation that agree, for the checker's tests to spoil."""

from __future__ import annotations

from uuid import UUID

import pytest

from tests.faults.history import Frame, History
from tests.faults.observation import Observation, Row

ORGANIZATION = "organization-1"
EVENT = "01a2222d-0000-7000-8000-000000000001"


def said(number: int, subject: str, aggregate: str, version: int, **more: object) -> Row:
    """An outbox row."""
    return {
        "seq": number,
        "event_id": UUID(int=number),
        "subject": subject,
        "aggregate_type": subject.split(".")[1],
        "aggregate_id": aggregate,
        "version": version,
        "organization_id": ORGANIZATION,
        "published": True,
        **more,
    }


@pytest.fixture
def history() -> History:
    """A ticket with a moved state, a task that was claimed and completed, an execution, an event and a usage."""
    made = History(7)

    def done(kind: str, asked: dict[str, object], answer: dict[str, object], identity: str | None = None) -> None:
        operation = made.begin(kind, "alder", asked, identity)
        made.end(operation, "ok", 200, answer)

    ticket = made.next_id()
    done("ticket.create", {"title": f"{ticket} ticket"}, {"id": "ticket-1"}, ticket)
    task = made.next_id()
    done("task.create", {"title": f"{task} task"}, {"id": "task-1"}, task)
    spec = made.next_id()
    done("spec.create", {"title": f"{spec} spec"}, {"id": "spec-1"}, spec)
    done("ticket.move", {"ticket_id": "ticket-1", "to_status": "building"}, {"version": 2, "status": "building"})
    claim = {"task": "task-1", "attempt": 1, "sandbox": "sandbox-1"}
    done("task.claim", {"max": 1}, {"claims": [claim]})
    done("sandbox.event", {"sandbox": "sandbox-1", "events": [EVENT]}, {})
    done("usage.report", {"usage_id": "usage-1"}, {})
    done("task.complete", claim, {})
    done("execution.start", {"spec_id": "spec-1"}, {"execution_id": "execution-1"})
    refused = made.begin("ticket.create", "alder", {"title": "refused"})
    made.end(refused, "fail", 422, {})
    made.frames = [
        Frame("alder", 1, 5, "TICKET_CREATED", "ticket", "ticket-1"),
        Frame("alder", 2, 6, "TASK_CREATED", "task", "task-1"),
    ]
    return made


@pytest.fixture
def seen() -> Observation:
    """What a stack holds that did exactly what the history says."""
    work = {"attempt": 1, "sandbox_id": "sandbox-1"}
    workflow = [
        said(1, "workflow.ticket.created.v1", "ticket-1", 1),
        said(2, "workflow.ticket.transitioned.v1", "ticket-1", 2, **{"from": "analyzing", "to": "building", "by": "u"}),
        said(3, "workflow.task.created.v1", "task-1", 1, **{"from": "", "to": "pending"}),
        said(4, "workflow.task.assigned.v1", "task-1", 2, **{"from": "pending", "to": "assigned", **work}),
        said(5, "workflow.task.started.v1", "task-1", 3, **{"from": "assigned", "to": "running", **work}),
        said(6, "workflow.task.completed.v1", "task-1", 4, **{"from": "running", "to": "completed", **work}),
    ]
    member = {"user_id": "user-1", "organization_id": ORGANIZATION}
    task = {"id": "task-1", "title": "op-7-2 task", "status": "completed", "execution_id": "execution-1"}
    return Observation(
        rows={
            "projects": [],
            "tickets": [
                {"id": "ticket-1", "organization_id": ORGANIZATION, "title": "op-7-1 ticket", "status": "building"}
            ],
            "tasks": [{**task, "organization_id": ORGANIZATION, "attempt": 1, "sandbox_id": "sandbox-1"}],
            "specs": [{"id": "spec-1", "organization_id": ORGANIZATION, "title": "op-7-3 spec"}],
            "executions": [
                {"id": "execution-1", "organization_id": ORGANIZATION, "spec_id": "spec-1", "state": "completed"}
            ],
            "sandbox_events": [{"sandbox_id": "sandbox-1", "event_id": UUID(EVENT), "number": 1}],
            "accounts": [
                {
                    "organization_id": ORGANIZATION,
                    "available_micro_usd": 90,
                    "reserved_micro_usd": 0,
                    "spent_micro_usd": 10,
                    "workflows_reserved": 0,
                    "workflows_completed": 1,
                }
            ],
            "reservations": [
                {
                    "id": "reservation-1",
                    "execution_id": "execution-1",
                    "organization_id": ORGANIZATION,
                    "state": "settled",
                    "reserved_micro_usd": 0,
                }
            ],
            "ledger": [
                {"organization_id": ORGANIZATION, "account": "available", "amount": 90},
                {"organization_id": ORGANIZATION, "account": "spent", "amount": 10},
            ],
            "unbalanced": [],
            "costs": [
                {"usage_id": "sandbox-1:usage-1", "organization_id": ORGANIZATION, "total_micro_usd": 10},
            ],
            "memberships": [member],
            "logged": [{"event_id": row["event_id"], "subject": row["subject"], "number": 1} for row in workflow],
            "logged_before": [{"event_id": workflow[0]["event_id"], "subject": workflow[0]["subject"], "number": 1}],
            "monitored_tasks": [{"task_id": "task-1", "status": "completed", "version": 4}],
            "monitored_tickets": [{"ticket_id": "ticket-1", "title": "op-7-1 ticket"}],
            "vcs_tickets": [{"ticket_id": "ticket-1", "title": "op-7-1 ticket"}],
        },
        outbox={"workflow": workflow},
        memberships={"billing": [dict(member)]},
        api={"alder": ["op-7-1 ticket"]},
    )
