"""What the stack costs without work, how fast it comes up, and whether it keeps what it takes."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.figures import Figure, at_most
from bench.http import load, operations
from bench.load import Plan
from bench.processes import open_files, used
from bench.stack import Stack
from omoios_local.ports import SERVICES

IDLE_S = 8.0


def cold_start(stack: Stack) -> Iterator[Figure]:
    """Everything ended and started again: installed, migrated, compiled."""
    stack.client.down()
    yield Figure("standing", "cold start to ready, 12 processes", stack.up(), "s", at_most(10))


def idle(stack: Stack) -> Iterator[Figure]:
    """Memory and processor time of processes that have nothing to do."""
    time.sleep(2)
    watch = stack.watch()
    before = watch.look()
    time.sleep(IDLE_S)
    after = watch.look()
    memory, cpu = stack.memory_mb(), used(before, after)
    for name in SERVICES:
        note = f"{cpu[name] / IDLE_S * 100:.2f} % of a core"
        yield Figure("standing", f"idle memory, {name}", memory[name], "MB PSS", at_most(120), note)
    total = sum(cpu[name] for name in SERVICES) / IDLE_S * 100
    note = f"PostgreSQL's parent {cpu['postgres'] / IDLE_S * 100:.2f} %, NATS {cpu['nats'] / IDLE_S * 100:.2f} %"
    yield Figure("standing", "idle processor time, six services", total, "% of a core", None, note)


def memory_after(stack: Stack) -> Iterator[Figure]:
    """The same work four times after everything else: what the last two both keep beyond the highest of the first two.

    One round against one would measure the allocator: the heap's top goes up and down by 10 MB with the buffers that
    happened to be in use at once.
    """
    seen: list[dict[str, float]] = []
    files: list[dict[str, int]] = []
    for _ in range(4):
        _round(stack)
        pids = stack.pids()
        seen.append(stack.memory_mb())
        files.append({name: open_files(pids[name]) for name in SERVICES})
    for name in SERVICES:
        rounds = [one[name] for one in seen]
        more = min(one[name] for one in files[2:]) - max(one[name] for one in files[:2])
        note = f"{' → '.join(f'{one:.0f}' for one in rounds)} MB PSS, open files {more:+d}"
        growth = min(rounds[2:]) - max(rounds[:2])
        yield Figure("memory kept by repeated rounds of all operations", name, growth, "MB", at_most(5), note)


def _round(stack: Stack) -> None:
    watch = stack.watch()
    for operation in operations(stack):
        # Signing in is limited by rate, which the runs before may have used up.
        rate = 5.0 if operation.name == "login" else 0.0
        plan = Plan(
            stack.http_port(operation.service),
            operation.requests,
            min(operation.connections, 16),
            0.6,
            warm_s=0.1,
            rate=rate,
            events=operation.events,
            least=2,
        )
        load(watch, plan)
    time.sleep(1.0)
