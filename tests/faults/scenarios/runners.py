"""Real runner processes, killed, ended and frozen while they work."""

from __future__ import annotations

import os
import time
from typing import Any

from tests.faults.run import Case, Run
from tests.faults.scenarios.processes import wait_ready
from tests.faults.stack import eventually
from tests.faults.tenant import PASSWORD, Tenant

RUNNERS = 3
SLOTS = 2
WORK_S = 6
# Longer than the lease of 10 s, so that a frozen runner loses its tasks.
TAKEN_OVER_S = 120.0


def runner(run: Run) -> None:
    """A tenant whose tasks only the stack's three runners work on."""
    tenant = run.load.call(run.load.tenant_without_runner("dogwood"))
    given = {
        "OMOIOS_RUNNER_NAME": "faults",
        "OMOIOS_RUNNER_EMAIL": tenant.email,
        "OMOIOS_RUNNER_PASSWORD": PASSWORD,
        "OMOIOS_RUNNER_ORGANIZATION": tenant.organization_id,
        "OMOIOS_RUNNER_SLOTS": str(SLOTS),
        "OMOIOS_RUNNER_PATH": "/usr/local/bin:/usr/bin:/bin",
    }
    os.environ.update(given)
    try:
        run.stack.client.up(instances={"runner": RUNNERS})
    finally:
        for name in given:
            del os.environ[name]
    try:
        for number in range(run.times):
            again = f", time {number + 1}" if number else ""
            # Both are noticed by the lease that runs out, so they are waited for together.
            with run.case(f"kill -9 of a runner and SIGSTOP of another beyond the lease{again}") as case:
                _strike(run, case, tenant, {1: "KILL", 2: "STOP"})
            with run.case(f"SIGTERM of a runner{again}") as case:
                _strike(run, case, tenant, {1: "TERM"})
    finally:
        run.stack.client.up(instances={"runner": 0})


def _strike(run: Run, case: Case, tenant: Tenant, signals: dict[int, str]) -> None:
    """Signal runners by their numbers while every runner works."""
    tasks = RUNNERS * SLOTS
    execution = run.load.call(run.load.execute_commands(tenant, [f"sleep {WORK_S}"] * tasks))
    eventually(lambda: _workers(run, execution) == RUNNERS, "every runner works", TAKEN_OVER_S)
    held = {row["id"]: row["assigned_agent_id"] for row in _tasks(run, execution, "running")}
    for number, signal in signals.items():
        run.stack.client.kill("runner", signal, number)
    try:
        began = time.monotonic()
        eventually(lambda: len(_tasks(run, execution, "completed")) == tasks, "the tasks are done", TAKEN_OVER_S)
        case.notes.append(f"all done {time.monotonic() - began:.0f} s later")
    finally:
        for number, signal in signals.items():
            if signal == "STOP":
                run.stack.client.kill("runner", "CONT", number)
    again = {row["id"] for row in _tasks(run, execution, "completed") if row["attempt"] > 1}
    lost = {agent for task, agent in held.items() if task in again}
    assert len(lost) >= len(signals), f"tasks of {len(lost)} runners were done again, {len(signals)} were struck"
    # A runner that wakes up finds its attempts over; its late writes are refused, which the checker verifies.
    run.steady(3.0 if "STOP" in signals.values() else 0.0)
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
