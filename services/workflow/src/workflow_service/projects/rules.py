"""Decisions about projects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servicekit.errors import Kind, invalid

STATUSES = ("active", "paused", "archived", "completed")
BIND_AGAIN_S = 60.0
MAX_CONCURRENT_TASKS = 1000

_TRANSIENT = frozenset({Kind.UNAVAILABLE, Kind.DEADLINE, Kind.INTERNAL, Kind.RATE_LIMITED, Kind.CONFLICT})


def concurrent_tasks(settings: Mapping[str, Any]) -> int | None:
    """The project's own limit of tasks at once from its settings; None where it sets none, -1 for no limit.

    Raises 422 for anything that is no such number.
    """
    value = settings.get("max_concurrent_tasks")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not (value == -1 or 1 <= value <= MAX_CONCURRENT_TASKS):
        raise invalid(("settings", "max_concurrent_tasks"), f"must be -1 or from 1 to {MAX_CONCURRENT_TASKS}", value)
    return value


def bind_delay_s(attempts: int) -> float:
    """Seconds until the next try to bind a repository: 1 s · 2^n, at most 60 s."""
    return min(2.0 ** min(attempts, 10), 60.0)


def may_bind_again(kind: Kind) -> bool:
    """Whether a refused binding may succeed later by itself."""
    return kind in _TRANSIENT
