"""Real runner processes, killed, ended and frozen while they work."""

from __future__ import annotations

import os
import time
from typing import Any

from tests.faults.run import Case, Run
from tests.faults.scenarios.processes import wait_ready
from tests.faults.stack import eventually
from tests.faults.tenant import PASSWORD, Tenant

WORK_S = 6
# Longer than the lease of 10 s, so that a frozen runner loses its tasks.
TAKEN_OVER_S = 120.0


def runner(run: Run) -> None:
    """A tenant whose tasks only the stack's two runners work on."""
    tenant = run.load.call(run.load.tenant_without_runner("dogwood"))
    given = {
        "OMOIOS_RUNNER_NAME": "faults",
        "OMOIOS_RUNNER_EMAIL": tenant.email,
        "OMOIOS_RUNNER_PASSWORD": PASSWORD,
        "OMOIOS_RUNNER_ORGANIZATION": tenant.organization_id,
        "OMOIOS_RUNNER_SLOTS": "2",
        "OMOIOS_RUNNER_PATH": "/usr/local/bin:/usr/bin:/bin",
    }
    os.environ.update(given)
    try:
        run.stack.client.up(instances={"runner": 2})
    finally:
        for name in given:
            del os.environ[name]
    try:
        for number in range(run.times):
            again = f", time {number + 1}" if number else ""
            for signal, name in (("KILL", "kill -9"), ("TERM", "SIGTERM"), ("STOP", "SIGSTOP beyond the lease")):
                with run.case(f"{name} of a runner{again}") as case:
                    _strike(run, case, tenant, signal)
    finally:
        run.stack.client.up(instances={"runner": 0})


def _strike(run: Run, case: Case, tenant: Tenant, signal: str) -> None:
    execution = run.load.call(run.load.execute_commands(tenant, [f"sleep {WORK_S}"] * 4))
    eventually(lambda: _workers(run, execution) == 2, "both runners work", TAKEN_OVER_S)
    held = _tasks(run, execution, "running")
    run.stack.client.kill("runner", signal, 1)
    try:
        began = time.monotonic()
        eventually(lambda: len(_tasks(run, execution, "completed")) == 4, "the tasks are done", TAKEN_OVER_S)
        case.notes.append(f"all done {time.monotonic() - began:.0f} s later")
    finally:
        if signal == "STOP":
            run.stack.client.kill("runner", "CONT", 1)
    again = [row for row in _tasks(run, execution, "completed") if row["attempt"] > 1]
    assert again, f"nothing was done again although a runner that held some of {len(held)} tasks was struck"
    # A runner that wakes up finds its attempts over; its late writes are refused, which the checker verifies.
    run.steady(3.0 if signal == "STOP" else 0.0)
    wait_ready(run, "runner")


def _tasks(run: Run, execution: str, status: str) -> list[dict[str, Any]]:
    return run.stack.sql(
        "workflow",
        "SELECT id, attempt, assigned_agent_id FROM tasks WHERE execution_id = $1 AND status = $2",
        execution,
        status,
    )


def _workers(run: Run, execution: str) -> int:
    """Runners that work on the execution now."""
    return len({row["assigned_agent_id"] for row in _tasks(run, execution, "running")})
