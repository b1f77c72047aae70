"""NATS killed with publishes in flight, away for long, and emptied."""

from __future__ import annotations

import shutil
import time

from tests.faults import judge
from tests.faults.run import Case, Run
from tests.faults.scenarios.processes import wait_ready
from tests.faults.stack import eventually

IN_FLIGHT = 1_000
# Longer than any relay or request waits for an acknowledgement or a connection.
DOWN_S = 60.0


def broker(run: Run) -> None:
    """Kills, an outage, and a deletion."""
    for number in range(20 if run.long else 3):
        with run.case(f"kill -9 of NATS with {IN_FLIGHT} publishes in flight, time {number + 1}") as case:
            _kill_in_flight(run, case)
    with run.case(f"NATS down for {DOWN_S:g} s") as case:
        began = run.load.history.now()
        run.stack.client.stop(["nats"])
        time.sleep(DOWN_S)
        waiting = run.stack.pending("workflow")
        assert waiting, "no event waits in the outbox although NATS is down"
        run.stack.client.up()
        _nothing_failed(run, case, began)
        _drains(run, case, waiting)
    for number in range(run.times):
        with run.case(f"the JetStream directory is deleted{f', time {number + 1}' if number else ''}") as case:
            began = run.load.history.now()
            run.stack.client.stop(["nats"])
            shutil.rmtree(run.stack.client.state.directory / "nats" / "data")
            run.steady(1.0)
            run.stack.client.up()
            _nothing_failed(run, case, began)
            _drains(run, case, run.stack.pending("workflow"))


def _kill_in_flight(run: Run, case: Case) -> None:
    began = run.load.history.now()
    # A frozen server takes nothing from the relays' sockets, so that what is published now is in flight.
    run.stack.client.kill("nats", "STOP")
    try:
        run.load.call(run.load.burst(IN_FLIGHT))
        waiting = run.stack.pending("workflow")
        assert waiting >= IN_FLIGHT, f"only {waiting} events are in flight"
        case.notes.append(f"{waiting} events in flight")
    finally:
        run.stack.client.kill("nats", "KILL")
    wait_ready(run, "nats")
    _drains(run, case, waiting)
    _nothing_failed(run, case, began)


def _nothing_failed(run: Run, case: Case, began: float) -> None:
    """NATS is no part of any request."""
    case.problems += run.failures(began)
    case.problems += judge.improper(run.since(began))


def _drains(run: Run, case: Case, waiting: int) -> None:
    since = time.monotonic()
    # Under load there is always something on its way: drained means that only the newest few are.
    eventually(lambda: run.stack.pending("workflow") < max(50, waiting // 20), "the outbox drains", 60)
    case.notes.append(f"drained {waiting} in {time.monotonic() - since:.1f} s")
