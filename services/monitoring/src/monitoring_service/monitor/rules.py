"""What counts as what on the dashboard, and the metrics' catalogue."""

from __future__ import annotations

from collections.abc import Mapping

PENDING = ("pending",)
COMPLETED = "completed"
FAILED = "failed"
RUNNING = "running"
LEASED = ("assigned", "running")
"""Statuses of tasks that an attempt holds a lease on: the locks of this system."""
ACTIVE_AGENTS = ("IDLE", "RUNNING")
NOT_OPERATIONAL = ("FAILED", "TERMINATED", "QUARANTINED")

TASKS_QUEUED = "tasks_queued_total"
TASKS_COMPLETED = "tasks_completed_total"
TASK_DURATION = "task_duration_seconds"
AGENTS_ACTIVE = "agents_active"
HEARTBEAT_AGE = "agent_heartbeat_age_seconds"
LOCKS_ACTIVE = "resource_locks_active"
COST = "cost_micro_usd_24h"
SOURCE_UP = "monitor_source_up"
LOCK_LABELS = {"resource_type": "task", "lock_mode": "exclusive"}


def total(counts: Mapping[str, int], statuses: tuple[str, ...]) -> int:
    """The sum of the counts of these statuses."""
    return sum(counts.get(status, 0) for status in statuses)
