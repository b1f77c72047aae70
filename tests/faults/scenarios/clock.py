"""The clock of one service, five minutes fast or slow."""

from __future__ import annotations

import glob
import time

from omoios_local.ports import SERVICES
from tests.faults import judge
from tests.faults.run import Case, Run
from tests.faults.scenarios.instances import revoked_everywhere

LIBRARY = "/usr/lib/*/faketime/libfaketimeMT.so.1"
WRONG_S = 4.0
SHORT = ("identity", "agents")


def clock(run: Run) -> None:
    """Each service in turn; the database, whose clock decides leases, and everybody else are right."""
    found = sorted(glob.glob(LIBRARY))
    for service in SERVICES if run.long else SHORT:
        for minutes in (5, -5):
            name = f"the clock of {service} is {abs(minutes)} minutes {'fast' if minutes > 0 else 'slow'}"
            if not found:
                run.skip(name, "libfaketime is not installed (Debian: faketime)")
                continue
            with run.case(name) as case:
                _wrong(run, case, service, minutes, found[0])
        if found:
            run.stack.overlay(service, {})
            run.stack.client.restart(service)
            run.healthy(within_s=60)


def _wrong(run: Run, case: Case, service: str, minutes: int, library: str) -> None:
    wrong = {"LD_PRELOAD": library, "FAKETIME": f"{minutes:+d}m", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    run.stack.overlay(service, wrong)
    run.stack.client.restart(service)
    run.healthy(within_s=60)
    began = run.load.history.now()
    before = _completed(run)
    # Tokens of now must hold at once, and end at once.
    revoked_everywhere(run, len(SERVICES))
    time.sleep(WRONG_S)
    assert _completed(run) > before, "no task was completed meanwhile"
    requests = run.since(began)
    case.problems += judge.failed(requests, sorted({item.kind for item in requests}))
    case.problems += judge.improper(requests)
    statement = "SELECT id FROM tasks WHERE leases_lost > 0 AND updated_at > now() - interval '5 seconds'"
    case.problems += [f"task {row['id']} lost its lease" for row in run.stack.sql("workflow", statement)[:3]]


def _completed(run: Run) -> int:
    return sum(item.kind == "task.complete" and item.outcome == "ok" for item in run.load.history.operations)
