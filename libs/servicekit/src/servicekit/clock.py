"""Time: aware, UTC. Leases and deadlines of rows use the database's clock instead."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def utc_now() -> datetime:
    """The wall clock, aware, in UTC."""
    return datetime.now(UTC)


def monotonic_s() -> float:
    """Seconds of a clock that never steps back; for measuring, not for telling the time."""
    return time.monotonic()


def to_wire(value: datetime) -> str:
    """ISO 8601 in UTC with ``Z`` and microseconds only where they are not zero.

    Raises ValueError for a naive value, whose zone nobody knows.
    """
    if value.tzinfo is None:
        raise ValueError("a time without a zone cannot be written")
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
