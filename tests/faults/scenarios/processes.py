"""Services, gateway and edge, killed, ended and frozen under load."""

from __future__ import annotations

import time

from omoios_local.ports import SERVICES
from tests.faults import judge
from tests.faults.run import Case, Run

FROZEN_S = 2.0
PROBES = {name: f"probe.{name}" for name in SERVICES}


def services(run: Run) -> None:
    """Each service in turn, by each signal."""
    for number in range(run.times):
        for signal in ("KILL", "TERM", "STOP"):
            order = list(SERVICES)
            run.rng.shuffle(order)
            for service in order:
                again = f", time {number + 1}" if number else ""
                name = {"KILL": "kill -9", "TERM": "SIGTERM", "STOP": f"SIGSTOP for {FROZEN_S:g} s"}[signal]
                with run.case(f"{name} of {service}{again}") as case:
                    _strike(run, case, service, signal)


def _strike(run: Run, case: Case, service: str, signal: str) -> None:
    # A random moment of the load.
    run.steady(run.rng.uniform(0.2, 0.8))
    before = run.stack.pids(service)
    began = run.load.history.now()
    run.stack.client.kill(service, signal)
    if signal == "STOP":
        time.sleep(FROZEN_S)
        run.stack.client.kill(service, "CONT")
    else:
        # The old process still answers until it is gone.
        while set(run.stack.pids(service)) & set(before):
            time.sleep(0.05)
    back = run.healthy()
    case.notes.append(f"healthy after {back:.1f} s")
    requests = run.since(began)
    others = [kind for name, kind in PROBES.items() if name != service]
    case.problems += judge.failed(requests, others)
    case.problems += judge.improper(requests, lost_allowed=signal == "STOP")


def gateway(run: Run) -> None:
    """The two processes that every request passes, or that answers for them."""
    for number in range(run.times):
        again = f", time {number + 1}" if number else ""
        for part in ("gateway", "edge"):
            with run.case(f"kill -9 of {'Traefik' if part == 'gateway' else part}{again}") as case:
                run.steady(run.rng.uniform(0.2, 0.8))
                began = run.load.history.now()
                run.stack.client.kill(part, "KILL")
                back = run.healthy()
                case.notes.append(f"healthy after {back:.1f} s")
                requests = run.since(began)
                case.problems += judge.improper(requests, lost_allowed=part == "gateway")
                if part == "edge":
                    case.problems += judge.failed(requests, list(PROBES.values()))
                    wait_ready(run, part)


def wait_ready(run: Run, part: str, within_s: float = 20.0) -> None:
    """Wait until the supervisor calls a part ready."""
    deadline = time.monotonic() + within_s
    while not run.stack.ready(part):
        assert time.monotonic() < deadline, f"{part} is not ready after {within_s:g} s"
        time.sleep(0.1)
