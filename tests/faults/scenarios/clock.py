"""The clock of one service, five minutes fast or slow."""

from __future__ import annotations

import glob

from omoios_local.ports import SERVICES
from tests.faults import judge
from tests.faults.history import of_kind
from tests.faults.run import Case, Run
from tests.faults.scenarios.instances import revoked_everywhere
from tests.faults.stack import eventually

LIBRARY = "/usr/lib/*/faketime/libfaketimeMT.so.1"
WRONG_S = 4.0
LOST_SHARE = 0.2
SHORT = ("identity", "agents")


def clock(run: Run) -> None:
    """Each service in turn; the database, whose clock decides leases, and everybody else are right."""
    found = sorted(glob.glob(LIBRARY))
    still_wrong: str | None = None
    for service in SERVICES if run.long else SHORT:
        for minutes in (5, -5):
            name = f"the clock of {service} is {abs(minutes)} minutes {'fast' if minutes > 0 else 'slow'}"
            if not found:
                run.skip(name, "libfaketime is not installed (Debian: faketime)")
                continue
            with run.case(name) as case:
                wrong = {"LD_PRELOAD": found[0], "FAKETIME": f"{minutes:+d}m", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
                run.stack.overlay(service, wrong)
                # Whose clock was wrong before is put right at the same time.
                run.stack.restart(*filter(None, (service, still_wrong)))
                still_wrong = None
                run.healthy(within_s=60)
                _wrong(run, case)
        if found:
            run.stack.overlay(service, {})
            still_wrong = service
    if still_wrong:
        run.stack.restart(still_wrong)
        run.healthy(within_s=60)


def _wrong(run: Run, case: Case) -> None:
    began = run.load.history.now()
    before = _completed(run)
    # Tokens of now must hold at once, and end at once.
    revoked_everywhere(run, len(SERVICES))
    run.steady(max(0.0, began + WRONG_S - run.load.history.now()))
    eventually(lambda: _completed(run) > before, "a task is completed meanwhile", 30)
    case.problems += run.failures(began)
    case.problems += judge.improper(run.since(began))
    claims = [
        claim
        for item in of_kind(run.load.history.operations, "task.claim")
        if item.began >= began
        for claim in item.answer.get("claims", [])
    ]
    newest = {row["id"]: row["attempt"] for row in run.stack.sql("workflow", "SELECT id, attempt FROM tasks")}
    lost = [claim["task"] for claim in claims if newest[claim["task"]] > claim["attempt"]]
    # A wrong clock would take every lease; one alone may also be lost by a machine that is too busy to renew it.
    assert len(lost) <= len(claims) * LOST_SHARE, f"{len(lost)} of {len(claims)} leases were lost"
    case.notes.append(f"{len(claims)} claims, {len(lost)} lost")


def _completed(run: Run) -> int:
    return sum(item.kind == "task.complete" and item.outcome == "ok" for item in run.load.history.operations)
