"""What this service counts, once it is committed."""

from __future__ import annotations

from servicekit.db import Tx
from servicekit.telemetry import counter

_executions = counter("workflow_executions_total", "Executions started, and ended by outcome.", ("outcome",))
_tasks = counter("workflow_tasks_total", "Tasks ended by outcome, and retries.", ("outcome",))
_leases = counter("workflow_leases_total", "Leases granted, renewed, lost, expired.", ("outcome",))


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
