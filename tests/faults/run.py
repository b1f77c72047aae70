"""One run: the stack, the load, and the cases that scenarios make of them."""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omoios_local.ports import SERVICES
from tests.faults import judge
from tests.faults.checker import ENDED_EXECUTIONS, OPEN_RESERVATIONS, check, not_logged
from tests.faults.history import Request
from tests.faults.load import Load
from tests.faults.observation import Observation, count_moving, observe_stack
from tests.faults.stack import FaultStack, eventually

# The design target of a recovery is 5 s; a case fails at four times that. On a machine where the stack itself needed
# long to start, a restart of one of its processes may take three times as long as that start.
RECOVERY_S = 20.0
STARTS = 3
REST_S = 240.0
LOOK_BACK_S = 15.0
# A short run ends within ten minutes: what it has not begun by then is skipped, and said to be.
SHORT_RUN_S = 540.0


@dataclass
class Case:
    """One expectation that was tried. `skipped`: why it could not be."""

    scenario: str
    name: str
    problems: list[str] = field(default_factory=list)
    skipped: str = ""
    took_s: float = 0.0
    notes: list[str] = field(default_factory=list)


@dataclass
class Run:
    """What scenarios work with. `times`: how often a fault is repeated."""

    stack: FaultStack
    load: Load
    seed: int
    long: bool
    out: Path
    cases: list[Case] = field(default_factory=list)
    scenario: str = ""
    told: set[str] = field(default_factory=set)
    """Violations that an earlier check has reported: what is lost stays lost, and counts once."""

    moved: list[str] = field(default_factory=list)
    """What still went on when the stack was last seen not to rest."""

    forgotten: set[Any] = field(default_factory=set)
    """Events that a restored service does not know that it said."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    @property
    def times(self) -> int:
        return 20 if self.long else 1

    @contextmanager
    def case(self, name: str) -> Iterator[Case]:
        """A case fails by what is appended to its problems and by an exception; the run goes on after it."""
        found = Case(self.scenario, name)
        began = time.monotonic()
        try:
            yield found
        except AssertionError as error:
            found.problems.append(str(error) or "an assertion failed")
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            found.problems.append(f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})")
        found.took_s = time.monotonic() - began
        self.cases.append(found)
        say(found)

    def skip(self, name: str, why: str) -> None:
        self.cases.append(Case(self.scenario, name, skipped=why))
        print(f"  SKIP  {name}: {why}", flush=True)

    def since(self, moment: float) -> list[Request]:
        """Requests that began at or after a moment of the history."""
        return [item for item in self.load.history.requests if item.at >= moment]

    def failures(self, began: float) -> list[str]:
        """Requests since then that failed, of whatever kind, but for answers as late as they were before."""
        before = [item for item in self.load.history.requests if began - LOOK_BACK_S <= item.at < began]
        requests = self.since(began)
        kinds = sorted({item.kind for item in requests})
        return judge.failed(requests, kinds, late_before=judge.late_share(before))

    def healthy(self, services: tuple[str, ...] = SERVICES, within_s: float | None = None) -> float:
        """Wait until every service answers three probes in a row; seconds that the slowest took from now."""
        began = self.load.history.now()
        # What begins from now on is appended from here on.
        first = len(self.load.history.requests)

        def back() -> float | None:
            requests = self.load.history.requests[first:]
            found = [judge.back_at(requests, f"probe.{name}", began) for name in services]
            known = [moment for moment in found if moment is not None]
            return max(known) - began + 1e-6 if len(known) == len(services) else None

        ceiling = within_s or max(RECOVERY_S, STARTS * self.stack.started_in_s)
        with self.load.probing_fast():
            return float(eventually(back, f"{', '.join(services)} answer again", ceiling + 5.0))

    def steady(self, seconds: float = 1.0) -> None:
        """Let the load run for a while."""
        time.sleep(seconds)

    def rest(self, within_s: float = REST_S) -> Observation:
        """Hold the writers, wait until nothing moves, and read everything; the load stays paused.

        Raises AssertionError with what still moves: of a stack at work nothing can be said.
        """
        self.load.pause()
        deadline = time.monotonic() + within_s
        # The replicas follow events that are applied after the last acknowledgement was counted: two quiet looks. All
        # rows of all tables are read only then, for that takes seconds of the processor's time.
        self.moved = []
        calm, moving = 0, ["nothing was read"]
        while True:
            try:
                moving = asyncio.run(count_moving(self.stack.stack))
                calm = 0 if moving else calm + 1
                if calm >= 2:
                    seen = asyncio.run(observe_stack(self.stack.stack))
                    if not (moving := _moving(seen)):
                        return seen
                self.moved = moving or self.moved
            except Exception as error:
                calm, moving = 0, [f"{type(error).__name__}: {error}"]
            assert time.monotonic() < deadline, f"not at rest within {within_s:g} s: {', '.join(moving)}"
            time.sleep(0.3)

    def verify(self) -> None:
        """The checker's case of this scenario: come to rest, read, check, and let the load go on."""
        with self.case("history: " + self.scenario) as case:
            began = time.monotonic()
            seen = self.rest()
            rested = time.monotonic() - began
            seen.forgotten = self.forgotten
            seen.api = self.load.call(self.load.list_tickets())
            found = [violation for violation in check(self.load.history, seen) if str(violation) not in self.told]
            self.told |= {str(violation) for violation in found}
            case.problems += [str(violation) for violation in found[:12]]
            if len(found) > 12:
                case.problems.append(f"and {len(found) - 12} more violations")
            case.problems += [f"the load broke: {error}" for error in self.load.errors]
            self.load.errors.clear()
            case.problems += [
                f"{name} has {number} connections, its pool allows {POOL_MAX}"
                for name, number in self.stack.connections().items()
                if number > POOL_MAX * max(len(self.stack.units(name)), 1)
            ]
            case.problems += [
                f"{row['name']} is {row['state']} for {row['since_s']:.0f} s, after {row['last_query'][:200]!r}"
                for row in self.stack.stuck_connections()
            ]
            counts = self.load.history.counts()
            case.notes.append(
                f"{counts['ok']} ok, {counts['fail']} fail, {counts['info']} unknown; at rest in {rested:.0f} s"
                f"{' after ' if self.moved else ''}{', '.join(self.moved)}"
            )
            self.load.history.write(self.out / f"{self.scenario}.jsonl")
        self.load.resume()


# Ten of the pool, and one each for the relay, the leader's lock and the access feed, with one being replaced.
POOL_MAX = 14


def say(case: Case) -> None:
    mark = "FAIL" if case.problems else "ok"
    notes = f"  [{'; '.join(case.notes)}]" if case.notes else ""
    print(f"  {mark:<5} {case.name} ({case.took_s:.1f} s){notes}", flush=True)
    for problem in case.problems:
        print(f"        {problem}", flush=True)


def _moving(seen: Observation) -> list[str]:
    """What goes on, as counts."""
    counts = {
        "tasks at work": sum(row["status"] in ("assigned", "running") for row in seen.table("tasks")),
        "executions": sum(row["state"] not in ENDED_EXECUTIONS for row in seen.table("executions")),
        "open reservations": sum(row["state"] in OPEN_RESERVATIONS for row in seen.table("reservations")),
        "unpublished events": sum(not row["published"] for rows in seen.outbox.values() for row in rows),
        "durables that lag": len(seen.lag),
        "events not yet logged": len(not_logged(seen)),
    }
    return [f"{number} {what}" for what, number in counts.items() if number]
