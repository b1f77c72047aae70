"""The checker finds every kind of violation, and nothing where there is none."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest

from tests.faults.checker import PROMISES, check
from tests.faults.history import Frame, History
from tests.faults.observation import Observation

Spoil = Callable[[History, Observation], object]


def test_a_faithful_stack_has_no_violation(history: History, seen: Observation) -> None:
    assert check(history, seen) == []


def test_what_is_unknown_may_be_there_or_not(history: History, seen: Observation) -> None:
    operation = history.begin("ticket.create", "alder", {"title": "unknown"})
    history.end(operation, "info", 503, {})
    assert check(history, seen) == []
    row = {
        "id": "ticket-2",
        "organization_id": "organization-1",
        "title": f"{operation.id} ticket",
        "status": "analyzing",
    }
    seen.rows["tickets"].append(row)
    for replica in ("monitored_tickets", "vcs_tickets"):
        seen.rows[replica].append({"ticket_id": "ticket-2", "title": row["title"]})
    assert check(history, seen) == []


def gone(table: str) -> Spoil:
    return lambda _, seen: seen.rows[table].clear()


def doubled(table: str, **changes: object) -> Spoil:
    return lambda _, seen: seen.rows[table].append({**seen.rows[table][0], **changes})


def changed(table: str, **changes: object) -> Spoil:
    return lambda _, seen: seen.rows[table][0].update(changes)


def event(number: int, **changes: object) -> Spoil:
    return lambda _, seen: seen.outbox["workflow"][number].update(changes)


def refused_yet_there(history: History, seen: Observation) -> None:
    mark = history.operations[-1].id
    seen.rows["tickets"].append({"id": "t", "organization_id": "o", "title": f"{mark} ticket", "status": "analyzing"})


def second_completion(_: History, seen: Observation) -> None:
    rows = seen.outbox["workflow"]
    rows.append({**rows[-1], "seq": 9, "version": 5})


def claimed_twice(history: History, _: Observation) -> None:
    again = history.begin("task.claim", "alder", {"max": 1})
    claim = {"task": "task-1", "attempt": 1, "sandbox": "sandbox-2"}
    history.end(again, "ok", 200, {"claims": [claim]})


def late_completion(_: History, seen: Observation) -> None:
    seen.outbox["workflow"].insert(
        4, {**seen.outbox["workflow"][3], "attempt": 2, "version": 2, "from": "assigned", "sandbox_id": "sandbox-2"}
    )


def foreign_frame(history: History, seen: Observation) -> None:
    seen.rows["projects"].append({"id": "project-9", "organization_id": "organization-9", "name": "other"})
    history.frames.append(Frame("alder", 2, 7, "PROJECT_CREATED", "project", "project-9"))


PLANTED: list[tuple[str, str, Spoil]] = [
    ("acknowledged is visible", "ticket lost", gone("tickets")),
    ("acknowledged is visible", "task lost", gone("tasks")),
    ("acknowledged is visible", "spec lost", gone("specs")),
    ("acknowledged is visible", "not listed", lambda _, seen: seen.api.update(alder=[])),
    ("acknowledged is visible", "move lost", lambda _, seen: seen.outbox["workflow"].pop(1)),
    ("acknowledged is visible", "sandbox event lost", gone("sandbox_events")),
    ("acknowledged is visible", "usage lost", gone("costs")),
    ("acknowledged is visible", "completion lost", lambda _, seen: seen.outbox["workflow"].pop()),
    ("acknowledged is visible", "execution lost", gone("executions")),
    ("acknowledged is visible", "no reservation", gone("reservations")),
    ("nothing twice", "ticket twice", doubled("tickets", id="ticket-2")),
    ("nothing twice", "sandbox event twice", changed("sandbox_events", number=2)),
    ("nothing twice", "usage charged twice", doubled("costs")),
    ("nothing twice", "two reservations", doubled("reservations", id="reservation-2")),
    ("nothing twice", "completed twice", second_completion),
    ("nothing twice", "claimed twice", claimed_twice),
    ("nothing twice", "logged twice", changed("logged", number=2)),
    ("nothing phantom", "nobody asked", doubled("tickets", id="t", title="op-7-99 ticket")),
    ("nothing phantom", "refused yet there", refused_yet_there),
    ("nothing phantom", "event nobody reported", doubled("sandbox_events", event_id=UUID(int=77))),
    ("nothing phantom", "execution of nothing", changed("executions", spec_id="spec-9")),
    ("legal moves", "ticket jumps", event(1, to="testing")),
    ("legal moves", "task jumps", event(3, to="completed")),
    ("legal moves", "chain broken", event(4, **{"from": "pending"})),
    ("legal moves", "version falls", event(5, version=1)),
    ("legal moves", "state without event", changed("tasks", status="pending")),
    ("leases are fenced", "late completion", late_completion),
    (
        "leases are fenced",
        "attempt assigned again",
        lambda _, seen: seen.outbox["workflow"].insert(4, dict(seen.outbox["workflow"][3])),
    ),
    ("leases are fenced", "told another sandbox", event(3, sandbox_id="sandbox-9")),
    (
        "ledger balances",
        "posting off",
        lambda _, seen: seen.rows["unbalanced"].append({"posting_id": "p", "amount": 1}),
    ),
    ("ledger balances", "balance off", changed("accounts", available_micro_usd=91)),
    ("ledger balances", "spent is not the costs", changed("costs", total_micro_usd=9)),
    ("ledger balances", "reserved without reservation", changed("accounts", workflows_reserved=1)),
    ("ledger balances", "still reserved", changed("reservations", state="confirmed")),
    ("drained", "unpublished", event(0, published=False)),
    ("drained", "lag", lambda _, seen: seen.lag.append({"durable": "d", "pending": 1, "unacknowledged": 0})),
    ("drained", "dead letter", lambda _, seen: setattr(seen, "dead_letters", 1)),
    ("drained", "event not applied", lambda _, seen: seen.rows["logged"].pop()),
    ("drained", "event from nowhere", doubled("logged_before", event_id=UUID(int=88))),
    ("finished", "task left behind", changed("tasks", status="running")),
    ("finished", "execution left behind", changed("executions", state="running")),
    ("replicas agree", "stale task", changed("monitored_tasks", status="running")),
    ("replicas agree", "missing ticket", gone("vcs_tickets")),
    ("replicas agree", "removed member kept", gone("memberships")),
    ("frames are ordered", "twice", lambda history, _: history.frames.append(history.frames[-1])),
    ("frames are ordered", "backwards", lambda history, _: history.frames.reverse()),
    ("frames are ordered", "another tenant's", foreign_frame),
]


@pytest.mark.parametrize(("promise", "what", "spoil"), PLANTED, ids=[f"{p}: {w}" for p, w, _ in PLANTED])
def test_a_planted_violation_is_found(
    history: History, seen: Observation, promise: str, what: str, spoil: Spoil
) -> None:
    spoil(history, seen)
    assert promise in {violation.promise for violation in check(history, seen)}, what


def test_every_promise_has_a_planted_violation() -> None:
    assert {promise for promise, _, _ in PLANTED} == set(PROMISES)
