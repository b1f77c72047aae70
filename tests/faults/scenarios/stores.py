"""PostgreSQL and Redis, killed under load."""

from __future__ import annotations

from tests.faults import judge
from tests.faults.run import POOL_MAX, Run
from tests.faults.scenarios.processes import PROBES, wait_ready
from tests.faults.stack import eventually


def stores(run: Run) -> None:
    """Each store in turn."""
    for number in range(run.times):
        again = f", time {number + 1}" if number else ""
        with run.case(f"kill -9 of PostgreSQL{again}") as case:
            run.steady(run.rng.uniform(0.2, 0.8))
            began = run.load.history.now()
            run.stack.client.kill("postgres", "KILL")
            back = run.healthy()
            case.notes.append(f"healthy after {back:.1f} s")
            case.problems += judge.improper(run.since(began))
            eventually(lambda: max(run.stack.connections().values()) <= POOL_MAX, "pools are back at their size", 20)
        with run.case(f"kill -9 of Redis{again}") as case:
            run.steady(run.rng.uniform(0.2, 0.8))
            began = run.load.history.now()
            run.stack.client.kill("redis", "KILL")
            wait_ready(run, "redis")
            back = run.healthy()
            requests = run.since(began)
            case.problems += judge.failed(requests, list(PROBES.values()))
            case.problems += judge.improper(requests)
