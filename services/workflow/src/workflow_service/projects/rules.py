"""Decisions about projects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from servicekit.errors import AppError, Kind, invalid

STATUSES = ("active", "paused", "archived", "completed")
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
    """Seconds until a repository is bound again, or its mirror asked after: 1 s · 2^n, at most 60 s."""
    return min(2.0 ** min(attempts, 10), 60.0)


def may_bind_again(kind: Kind) -> bool:
    """Whether a refused binding may succeed later by itself."""
    return kind in _TRANSIENT


def refusal(error: AppError) -> str:
    """Why a binding was refused, for the project's owner: which of his inputs, and what is wrong with it."""
    named = "; ".join(f"{field.loc[-1]}: {field.msg}" for field in error.fields)
    return named or error.detail


def same_repository(first: str, second: str) -> bool:
    """Whether two URLs or paths name one repository, but for how they are written."""
    return _place(first) == _place(second)


def _place(text: str) -> tuple[str, ...]:
    value = text.strip()
    if value.startswith("/"):
        return (str(PurePosixPath(value)),)
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return (value,)
    return (parts.scheme, parts.hostname or "", str(port or ""), parts.path)
