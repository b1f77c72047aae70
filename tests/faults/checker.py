"""The one checker: judges what a stack holds against what its clients were told.

`check(history, observation)` returns every violation. It is plain Python over two values, so that its own tests can
plant each violation and see it found.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from tests.faults.history import PREFIX, History, Operation, of_kind
from tests.faults.observation import Observation, Row
from tests.faults.violations import BY_WORKFLOW, TASK_MOVES, TICKET_MOVES, TICKET_ORDER, Violation

MARK = re.compile(re.escape(PREFIX) + r"[0-9a-f]+-[0-9]+")
OPEN_RESERVATIONS = ("held", "confirmed")
ENDED_TASKS = ("completed", "failed", "cancelled")
ENDED_EXECUTIONS = ("completed", "failed", "cancelled")
CREATED = {
    # Kind of operation → table of the observation, column that carries the operation's id.
    "project.create": ("projects", "name"),
    "ticket.create": ("tickets", "title"),
    "task.create": ("tasks", "title"),
    "spec.create": ("specs", "title"),
}

# What a sandbox reports has its place in the sandbox's stream as version, its start and end that of its row.
COUNTED_BY_SUBJECT = ("sandbox",)

Found = Iterator[Violation]


def check(history: History, seen: Observation) -> list[Violation]:
    """Every violation, each promise by its own function."""
    return [violation for promise in PROMISES.values() for violation in promise(history, seen)]


def mark_of(text: str | None) -> str:
    """The operation whose id the text carries; empty for none."""
    found = MARK.search(text or "")
    return found.group() if found else ""


def acknowledged_is_visible(history: History, seen: Observation) -> Found:
    """Whatever was acknowledged is there."""
    name = "acknowledged is visible"
    for kind, (table, column) in CREATED.items():
        stored = {(row["id"], mark_of(row[column])) for row in seen.table(table)}
        for item in of_kind(history.operations, kind):
            if item.outcome == "ok" and item.answer and (item.answer["id"], item.id) not in stored:
                yield Violation(name, item.id, f"{kind} answered {item.answer['id']}, which {table} does not hold")
    listed = {title for titles in seen.api.values() for title in titles}
    for item in of_kind(history.operations, "ticket.create") if seen.api else []:
        if item.outcome == "ok" and item.asked["title"] not in listed:
            yield Violation(name, item.id, "the public API does not list the ticket")
    moved = {
        (row["aggregate_id"], row["version"]): row["to"]
        for row in seen.outbox.get("workflow", [])
        if row["subject"] == "workflow.ticket.transitioned.v1"
    }
    for item in of_kind(history.operations, "ticket.move"):
        if (
            item.outcome == "ok"
            and moved.get((item.asked["ticket_id"], item.answer["version"])) != item.answer["status"]
        ):
            yield Violation(name, item.id, f"the move of {item.asked['ticket_id']} to {item.answer} was never made")
    yield from _work_is_visible(name, history, seen)


def _work_is_visible(name: str, history: History, seen: Observation) -> Found:
    events = {(row["sandbox_id"], str(row["event_id"])) for row in seen.table("sandbox_events")}
    usages = {row["usage_id"].rpartition(":")[2] for row in seen.table("costs")}
    executions = {row["id"] for row in seen.table("executions")}
    reserved = {row["execution_id"] for row in seen.table("reservations")}
    completed = set(_completions(seen))
    for item in history.operations:
        if item.outcome != "ok":
            continue
        if item.kind in ("sandbox.event", "sandbox.events"):
            for event in item.asked["events"]:
                if (item.asked["sandbox"], event) not in events:
                    yield Violation(name, item.id, f"event {event} of {item.asked['sandbox']} is gone")
        elif item.kind == "usage.report" and item.asked["usage_id"] not in usages:
            yield Violation(name, item.id, f"usage {item.asked['usage_id']} was never charged")
        elif item.kind == "task.complete":
            if (item.asked["task"], item.asked["attempt"], item.asked["sandbox"]) not in completed:
                yield Violation(name, item.id, f"task {item.asked['task']} was not completed by its attempt")
        elif item.kind == "execution.start" and item.answer:
            execution = item.answer["execution_id"]
            if execution not in executions:
                yield Violation(name, item.id, f"{execution} is gone")
            elif execution not in reserved:
                yield Violation(name, item.id, f"{execution} runs without a reservation")


def _completions(seen: Observation) -> list[tuple[str, int, str]]:
    """(task, attempt, sandbox) of every completion that workflow told."""
    return [
        (row["aggregate_id"], row["attempt"], row["sandbox_id"])
        for row in seen.outbox.get("workflow", [])
        if row["subject"] == "workflow.task.completed.v1"
    ]


def nothing_twice(history: History, seen: Observation) -> Found:
    """No operation had its effect more than once."""
    name = "nothing twice"
    for table, column in CREATED.values():
        # Tickets and tasks that a plan brings carry their spec's mark; each of them has a title of its own.
        texts = Counter((mark_of(row[column]), row[column]) for row in seen.table(table) if mark_of(row[column]))
        for (mark, text), number in texts.items():
            if number > 1:
                yield Violation(name, mark, f"{table} holds {number} rows {text!r}")
    for row in seen.table("sandbox_events"):
        if row["number"] > 1:
            yield Violation(name, str(row["event_id"]), f"{row['number']} times in the stream of {row['sandbox_id']}")
    for usage, number in Counter(row["usage_id"] for row in seen.table("costs")).items():
        if number > 1:
            yield Violation(name, usage, f"charged {number} times")
    for execution, number in Counter(row["execution_id"] for row in seen.table("reservations")).items():
        if number > 1:
            yield Violation(name, execution, f"{number} reservations")
    for task, number in Counter(task for task, _, _ in _completions(seen)).items():
        if number > 1:
            yield Violation(name, task, f"completed {number} times")
    handed: dict[tuple[str, int], list[str]] = defaultdict(list)
    for item in of_kind(history.operations, "task.claim"):
        for claim in item.answer.get("claims", []):
            handed[claim["task"], claim["attempt"]].append(claim["sandbox"])
    for (task, attempt), sandboxes in handed.items():
        if len(sandboxes) > 1:
            yield Violation(name, task, f"attempt {attempt} was handed out to {', '.join(sandboxes)}")
    for row in seen.table("logged"):
        if row["number"] > 1:
            yield Violation(name, str(row["event_id"]), f"{row['subject']} is {row['number']} times in the event log")


def nothing_phantom(history: History, seen: Observation) -> Found:
    """Nothing is there that no client asked for, and nothing that was refused."""
    name = "nothing phantom"
    asked = {item.id: item for item in history.operations}
    specs = {row["id"] for row in seen.table("specs")}
    for kind, (table, column) in CREATED.items():
        for row in seen.table(table):
            mark = mark_of(row[column])
            if not mark:
                continue
            item = asked.get(mark)
            if item is None:
                yield Violation(name, mark, f"{table} holds {row['id']}, which nobody asked for")
            elif item.kind == kind and not item.may_have_happened:
                yield Violation(name, mark, f"{kind} was refused with {item.status}, yet {table} holds {row['id']}")
    claimable = {claim["sandbox"] for item in history.operations for claim in item.answer.get("claims", [])}
    reported = {
        (item.asked["sandbox"], event)
        for item in of_kind(history.operations, "sandbox.event", "sandbox.events")
        if item.may_have_happened
        for event in item.asked["events"]
    }
    for row in seen.table("sandbox_events"):
        if row["sandbox_id"] in claimable and (row["sandbox_id"], str(row["event_id"])) not in reported:
            yield Violation(name, str(row["event_id"]), f"{row['sandbox_id']} never reported it")
    for row in seen.table("executions"):
        if row["spec_id"] not in specs:
            yield Violation(name, row["id"], f"executes {row['spec_id']}, which does not exist")


def legal_moves(history: History, seen: Observation) -> Found:
    """Only legal transitions, each from where the one before ended; versions only rise."""
    name = "legal moves"
    versions: dict[tuple[str, str, str], int] = {}
    where: dict[str, str] = {}
    for service, rows in seen.outbox.items():
        for row in rows:
            counted = row["subject"] if row["aggregate_type"] in COUNTED_BY_SUBJECT else row["aggregate_type"]
            key = (service, counted, row["aggregate_id"])
            # Aggregates without a version of their own say 0.
            if row["version"] and row["version"] < versions.get(key, 0):
                yield Violation(
                    name, row["aggregate_id"], f"{row['subject']} has version {row['version']} after {versions[key]}"
                )
            versions[key] = max(row["version"], versions.get(key, 0))
            if "to" in row:
                yield from _move(name, row, where)
    for table, ended in (("tasks", "task"), ("tickets", "ticket")):
        for row in seen.table(table):
            last = where.get(f"{ended} {row['id']}")
            if last is not None and last != row["status"]:
                yield Violation(name, row["id"], f"is {row['status']}, but its last event says {last}")


def _move(name: str, row: Row, where: dict[str, str]) -> Found:
    kind, before, after = row["aggregate_type"], row["from"], row["to"]
    key = f"{kind} {row['aggregate_id']}"
    last = where.get(key)
    if last is not None and last != before:
        yield Violation(name, row["aggregate_id"], f"{row['subject']} goes from {before}, but it was {last}")
    where[key] = after
    if kind == "task":
        legal = after in TASK_MOVES.get(before, set())
    elif row.get("by") == BY_WORKFLOW:
        legal = TICKET_ORDER.index(after) > TICKET_ORDER.index(before)
    else:
        legal = after in TICKET_MOVES.get(before, set())
    if not legal:
        yield Violation(name, row["aggregate_id"], f"{row['subject']} goes from {before!r} to {after!r}")


def leases_are_fenced(history: History, seen: Observation) -> Found:
    """Attempts of a task only rise, each has one sandbox, and the newest one completes it."""
    name = "leases are fenced"
    given: dict[tuple[str, int], str] = {}
    newest: dict[str, int] = {}
    for row in seen.outbox.get("workflow", []):
        task = row["aggregate_id"]
        if row["subject"] == "workflow.task.assigned.v1":
            if row["attempt"] <= newest.get(task, 0):
                yield Violation(name, task, f"attempt {row['attempt']} was assigned after attempt {newest[task]}")
            newest[task] = max(row["attempt"], newest.get(task, 0))
            given[task, row["attempt"]] = row["sandbox_id"]
        elif row["subject"] == "workflow.task.completed.v1" and row["attempt"] != newest.get(task):
            yield Violation(name, task, f"completed by attempt {row['attempt']}, the newest is {newest.get(task)}")
    for item in of_kind(history.operations, "task.claim"):
        for claim in item.answer.get("claims", []):
            sandbox = given.get((claim["task"], claim["attempt"]))
            if seen.outbox and sandbox != claim["sandbox"]:
                yield Violation(
                    name,
                    claim["task"],
                    f"{claim['sandbox']} was told attempt {claim['attempt']}, which {sandbox} holds",
                )


def ledger_balances(history: History, seen: Observation) -> Found:
    """Postings sum up to zero, balances to the entries, what was spent to the costs; nothing ended stays reserved."""
    name = "ledger balances"
    for row in seen.table("unbalanced"):
        yield Violation(name, row["posting_id"], f"is off by {row['amount']} micro-USD")
    entries = {(row["organization_id"], row["account"]): row["amount"] for row in seen.table("ledger")}
    costs: Counter[str] = Counter()
    for row in seen.table("costs"):
        costs[row["organization_id"]] += row["total_micro_usd"]
    held: Counter[str] = Counter()
    slots: Counter[str] = Counter()
    for row in seen.table("reservations"):
        if row["state"] in OPEN_RESERVATIONS:
            held[row["organization_id"]] += row["reserved_micro_usd"]
            slots[row["organization_id"]] += 1
    for account in seen.table("accounts"):
        owner = account["organization_id"]
        for kind in ("available", "reserved", "spent"):
            balance, sum_ = account[f"{kind}_micro_usd"], entries.get((owner, kind), 0)
            if balance != sum_:
                yield Violation(name, owner, f"{kind} is {balance}, its entries sum up to {sum_}")
        if account["reserved_micro_usd"] != held[owner]:
            yield Violation(
                name, owner, f"{account['reserved_micro_usd']} reserved, open reservations hold {held[owner]}"
            )
        if account["workflows_reserved"] != slots[owner]:
            yield Violation(
                name, owner, f"{account['workflows_reserved']} slots reserved, {slots[owner]} reservations open"
            )
        if account["spent_micro_usd"] + account["reserved_micro_usd"] < costs[owner]:
            yield Violation(name, owner, f"spent {account['spent_micro_usd']}, the costs are {costs[owner]}")
        if not slots[owner] and account["spent_micro_usd"] != costs[owner]:
            yield Violation(name, owner, f"spent {account['spent_micro_usd']}, the costs are {costs[owner]}")
    ended = {row["id"]: row["state"] for row in seen.table("executions") if row["state"] in ENDED_EXECUTIONS}
    for row in seen.table("reservations"):
        if row["execution_id"] in ended and row["state"] in OPEN_RESERVATIONS:
            yield Violation(name, row["id"], f"is {row['state']}, its execution is {ended[row['execution_id']]}")


def drained(history: History, seen: Observation) -> Found:
    """Every event was published and applied by everybody whom it concerns; no dead letter."""
    name = "drained"
    for service, rows in seen.outbox.items():
        if left := sum(not row["published"] for row in rows):
            yield Violation(name, service, f"{left} events are not published")
    for row in seen.lag:
        yield Violation(name, row["durable"], f"{row['pending']} pending, {row['unacknowledged']} unacknowledged")
    if seen.dead_letters:
        yield Violation(name, "DLQ", f"{seen.dead_letters} dead letters")
    said = {row["event_id"]: row["subject"] for rows in seen.outbox.values() for row in rows}
    for event in not_logged(seen):
        yield Violation(name, str(event), f"{said[event]} is not in the event log")
    for event in {row["event_id"] for row in seen.table("logged_before")} - said.keys() - seen.forgotten:
        yield Violation(name, str(event), "the event log holds an event that nobody said")


def not_logged(seen: Observation) -> set[Any]:
    """Events that were said and are not in the event log, which everybody's events go to."""
    said = {row["event_id"] for rows in seen.outbox.values() for row in rows}
    return said - {row["event_id"] for row in seen.table("logged")}


def finished(history: History, seen: Observation) -> Found:
    """Work that could go on went on: no claimable task and no execution is left behind."""
    name = "finished"
    ours = {mark_of(row["title"]) for row in seen.table("tasks")} - {""}
    for row in seen.table("tasks"):
        if mark_of(row["title"]) in ours and row["execution_id"] and row["status"] not in ENDED_TASKS:
            yield Violation(name, row["id"], f"task of {row['execution_id']} is still {row['status']}")
    for row in seen.table("executions"):
        if row["state"] not in ENDED_EXECUTIONS:
            yield Violation(name, row["id"], f"is still {row['state']}")


def replicas_agree(history: History, seen: Observation) -> Found:
    """Every read-only projection says what its owner says."""
    name = "replicas agree"
    yield from _same(
        name, "monitoring.replica_tasks", seen.table("monitored_tasks"), "task_id", seen.table("tasks"), "status"
    )
    for table in ("monitored_tickets", "vcs_tickets"):
        yield from _same(name, table, seen.table(table), "ticket_id", seen.table("tickets"), "title")
    owners = {(row["user_id"], row["organization_id"]) for row in seen.table("memberships")}
    for service, rows in seen.memberships.items():
        copies = {(row["user_id"], row["organization_id"]) for row in rows}
        for user, organization in owners ^ copies:
            side = "lacks" if (user, organization) in owners else "has"
            yield Violation(name, f"{service}.replica_memberships", f"{side} {user} in {organization}")


def _same(name: str, what: str, copies: list[Row], key: str, owner: list[Row], column: str) -> Found:
    copied: dict[str, Any] = {row[key]: row[column] for row in copies}
    owned: dict[str, Any] = {row["id"]: row[column] for row in owner}
    for identity in owned.keys() | copied.keys():
        if owned.get(identity) != copied.get(identity):
            yield Violation(
                name, what, f"{identity} is {copied.get(identity)!r}, its owner says {owned.get(identity)!r}"
            )


def frames_are_ordered(history: History, seen: Observation) -> Found:
    """A WebSocket gives each frame once, in order, and never one of another tenant."""
    name = "frames are ordered"
    owners = {
        row["id"]: row["organization_id"]
        for table in ("projects", "tickets", "tasks", "specs", "executions")
        for row in seen.table(table)
    }
    tenants = {
        item.tenant: owner for item in of_kind(history.operations, "ticket.create") if (owner := _owner(item, owners))
    }
    last: dict[str, int] = {}
    got: set[tuple[str, int, str, str]] = set()
    for frame in history.frames:
        if frame.sequence < last.get(frame.tenant, 0):
            yield Violation(name, frame.tenant, f"frame {frame.sequence} came after {last[frame.tenant]}")
        last[frame.tenant] = frame.sequence
        key = (frame.tenant, frame.sequence, frame.event_type, frame.entity_id)
        if key in got:
            yield Violation(name, frame.tenant, f"frame {frame.sequence} {frame.event_type} came twice")
        got.add(key)
        owner = owners.get(frame.entity_id)
        if owner is not None and frame.tenant in tenants and owner != tenants[frame.tenant]:
            yield Violation(
                name, frame.tenant, f"saw {frame.event_type} of {frame.entity_id}, which is another tenant's"
            )


def _owner(item: Operation, owners: dict[str, str]) -> str | None:
    return owners.get(item.answer.get("id", ""))


PROMISES: dict[str, Callable[[History, Observation], Found]] = {
    "acknowledged is visible": acknowledged_is_visible,
    "nothing twice": nothing_twice,
    "nothing phantom": nothing_phantom,
    "legal moves": legal_moves,
    "leases are fenced": leases_are_fenced,
    "ledger balances": ledger_balances,
    "drained": drained,
    "finished": finished,
    "replicas agree": replicas_agree,
    "frames are ordered": frames_are_ordered,
}
