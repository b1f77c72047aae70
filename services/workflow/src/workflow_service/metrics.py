"""What this service counts, once it is committed."""

from __future__ import annotations

from collections.abc import Sequence

from servicekit.db import Tx
from servicekit.telemetry import counter, histogram

_executions = counter("workflow_executions_total", "Executions started, and ended by outcome.", ("outcome",))
_tasks = counter("workflow_tasks_total", "Tasks ended by outcome, and retries.", ("outcome",))
_leases = counter("workflow_leases_total", "Leases granted, renewed, lost, expired.", ("outcome",))

# A task waits for milliseconds where a claim is parked for it, for hours where nobody works.
_waits = histogram(
    "workflow_queue_wait_seconds",
    "From the last change of a claimable task, which is when it became claimable if nobody edited it, to its claim.",
    (),
    (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0),
)


def execution(tx: Tx, outcome: str) -> None:
    """`started`, or the state in which an execution ended."""
    tx.on_commit(_executions.labels(outcome).inc)


def task(tx: Tx, outcome: str) -> None:
    """`completed`, `failed`, `cancelled` or `retried`."""
    tx.on_commit(_tasks.labels(outcome).inc)


def leases(tx: Tx, outcome: str, count: int) -> None:
    """`granted`, `renewed`, `lost` (a heartbeat of an attempt that holds none) or `expired`."""
    if count > 0:
        tx.on_commit(lambda: _leases.labels(outcome).inc(count))


def waited(tx: Tx, seconds: Sequence[float]) -> None:
    """How long each task that is handed out now was claimable."""

    def observe() -> None:
        for one in seconds:
            _waits.observe(max(one, 0.0))

    tx.on_commit(observe)
