"""A backup, changes, and one database put back while the others are ahead."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from omoios_local import backup, operations
from omoios_local.ports import SERVICES
from tests.faults.run import Case, Run

# Services whose databases can be made whole again from the others: billing from the executions and usages that
# workflow and agents tell again, monitoring from everybody's events, vcs's copies from snapshots.
SHORT = ("billing",)
LONG = ("billing", "monitoring", "vcs")
CHANGES_S = 3.0
REBUILT_AT_ONCE = 2


def restore(run: Run) -> None:
    """Each database in turn; the checker then asks of it all that it asks after any other scenario."""
    for service in LONG if run.long else SHORT:
        with run.case(f"{service} is put back to a backup while the others are ahead") as case:
            _put_back(run, case, service)
            run.load.resume()


def _put_back(run: Run, case: Case, service: str) -> None:
    file = backup.backup(run.stack.client, run.stack.directory / f"{service}.tar")
    run.steady(CHANGES_S)
    before = run.rest().outbox[service]
    backup.restore(run.stack.client, file, service)
    if service == "monitoring":
        # Its log counts on from the backup, so the numbers of what readers saw since then come again.
        run.load.forget_frames()
    run.stack.start()
    run.healthy(within_s=90)
    kept = {row["event_id"] for row in run.stack.sql(service, "SELECT event_id FROM outbox")}
    lost = {row["event_id"] for row in before} - kept
    assert lost, "nothing happened between the backup and its restore"
    # What it said after the backup is in the others' past, and in its own no more.
    run.forgotten |= lost
    case.notes.append(f"{len(lost)} of its events were said after the backup")
    with ThreadPoolExecutor(REBUILT_AT_ONCE) as pool:
        for name, done in zip(SERVICES, pool.map(lambda name: _rebuild(run, name), SERVICES), strict=True):
            assert done.returncode == 0, f"make rebuild service={name}: {done.stderr.strip()[-400:]}"
    file.unlink()


def _rebuild(run: Run, service: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "servicekit.events.rebuild", service],
        env=operations.environment_of(run.stack.client, service),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
