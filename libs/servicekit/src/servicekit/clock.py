"""Time: aware, UTC, and corrected to the database's clock, which decides leases and stamps revocations.

A process whose own clock is minutes off would sign tokens that others take for future ones, refuse good ones, and see
everything expired or nothing. So a part that asks the database anyway (the access feed, once a second) calls `correct`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(slots=True)
class _Correction:
    """Seconds that the database is ahead of this process."""

    offset_s: float = 0.0


_correction = _Correction()


def utc_now() -> datetime:
    """The wall clock, aware, in UTC, corrected."""
    return datetime.now(UTC) + timedelta(seconds=_correction.offset_s)


def wall_s() -> float:
    """The wall clock in Unix seconds, corrected."""
    return time.time() + _correction.offset_s


def correct(before_s: float, database_s: float, after_s: float) -> None:
    """Takes over one look at the database's clock: its Unix time, and `time.time()` before and after asking.

    The answer was given somewhere between the two, so that much is not known; within that the correction stays as it
    was. Two machines that agree to a few milliseconds are never corrected.
    """
    earliest, latest = database_s - after_s, database_s - before_s
    if earliest <= latest:
        _correction.offset_s = min(max(_correction.offset_s, earliest), latest)


def correction_s() -> float:
    """Seconds that are added to this process's own clock."""
    return _correction.offset_s


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
