"""What of a stack's state is wrong, where, and what to do: pure decisions over what `status` has read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# An event is through within milliseconds; ten seconds of waiting is no load but a part that does not work.
LATE_S = 10.0
LOW_DISK_BYTES = 2 * 1000**3
LOW_DISK_SHARE = 0.05

OUTBOX = "docs/runbooks/outbox-lag.md"
UNREAD = "docs/runbooks/unread-events.md"
DEAD = "docs/runbooks/dead-letters.md"
FULL_DISK = "docs/runbooks/full-disk.md"


@dataclass(frozen=True)
class Problem:
    """One line: the part, what is wrong with it, what to do, and the page that tells more."""

    part: str
    what: str
    todo: str
    page: str = ""

    def as_dict(self) -> dict[str, str]:
        return {"part": self.part, "what": self.what, "todo": self.todo, "page": self.page}


def find(units: Sequence[Mapping[str, Any]], figures: Mapping[str, Any]) -> list[Problem]:
    """Every problem, those first that explain others.

    ``units``: what the supervisor says of each part and step. ``figures``: `observe.Figures.as_dict()`.
    """
    down = {unit["part"] for unit in units if "pid" in unit and unit["state"] != "ready"}
    found = [*_parts(units), *_disk(figures["volume"])]
    if "postgres" not in down:
        # A database that is away explains itself above; one that answers with an error does not.
        found += _outboxes(figures["outbox"], down)
    if "nats" not in down:
        found += _streams(figures)
    return found


def _parts(units: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    for unit in units:
        name, state, detail = unit["part"], unit["state"], unit["detail"]
        shown = name if unit.get("instance", 1) == 1 else f"{name} #{unit['instance']}"
        if "pid" not in unit:
            if state not in ("done", "waiting", "running", "starting"):
                yield Problem(shown, f"step {state}: {detail}", "mend the cause, then `make up`")
        elif state == "backoff":
            yield Problem(shown, f"keeps ending: {detail}", f"`make logs part={name}`; it is started again by itself")
        elif state == "suspended":
            yield Problem(shown, "is suspended (SIGSTOP)", f"`kill -CONT {unit['pid']}` or `make restart part={name}`")
        elif state == "stopped":
            yield Problem(shown, f"is stopped {detail}".rstrip(), f"`make restart part={name}` or `make up`")
        elif state != "ready":
            yield Problem(shown, f"is {state} {detail}".rstrip(), f"wait; if it lasts, `make logs part={name}`")


def _disk(volume: Mapping[str, int]) -> Iterator[Problem]:
    if not volume:
        return
    free, total = volume["free_bytes"], volume["total_bytes"]
    if free < max(LOW_DISK_BYTES, total * LOW_DISK_SHARE):
        text = f"{free / 1000**3:.1f} GB of {total / 1000**3:.0f} GB are free; JetStream and PostgreSQL stop first"
        yield Problem("disk", text, "make room", FULL_DISK)


def _outboxes(outboxes: Mapping[str, Mapping[str, Any]], down: set[str]) -> Iterator[Problem]:
    for name, outbox in outboxes.items():
        if "error" in outbox:
            yield Problem(name, f"database: {outbox['error']}", "`make logs part=postgres`")
        elif outbox["oldest_s"] > LATE_S:
            cause = next((part for part in (name, "nats") if part in down), None)
            todo = f"bring {cause} back" if cause else f"its relay does not publish: `make logs part={name}`"
            text = f"{outbox['pending']} events wait in the outbox, the oldest for {outbox['oldest_s']:.0f} s"
            yield Problem(name, text, todo, OUTBOX)
        for row in outbox.get("unread", ()):
            yield _unread(name, row, down)


def _unread(producer: str, row: Mapping[str, Any], down: set[str]) -> Problem:
    service = row["durable"].partition("-")[0]
    since = f"the last {row['since_s'] / 3600:.1f} h"
    text = f"the stream {producer.upper()} dropped events of {since} that {row['durable']} may not have handled"
    bring = f"bring {service} back" if service in down else "wait"
    if row["may_be_lost"]:
        todo = f"{bring}, then `make rebuild service={service}`: the outbox does not reach back as far"
    else:
        todo = f"{bring}: {producer} sends them to it again when it has caught up"
    return Problem(service, text, todo, UNREAD)


def _streams(figures: Mapping[str, Any]) -> Iterator[Problem]:
    if figures["dead_letters"] is None:
        yield Problem("nats", "answers, but not about its streams", "`make logs part=nats`; `make up` makes streams")
        return
    for row in figures["consumers"]:
        waiting = row["pending"] + row["unacknowledged"]
        if waiting and row["idle_s"] > LATE_S:
            service = row["durable"].partition("-")[0]
            text = f"{row['durable']} has acknowledged nothing for {row['idle_s']:.0f} s, {waiting} events wait"
            yield Problem(service, text, f"`make logs part={service}` says why; `make restart part={service}`", OUTBOX)
    if figures["dead_letters"]:
        count = figures["dead_letters"]
        letters = "1 dead letter" if count == 1 else f"{count} dead letters"
        yield Problem("events", letters, "`make dlq` says why; mend it, then `make dlq-replay`", DEAD)
