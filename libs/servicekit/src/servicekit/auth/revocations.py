"""Revoked principals and sessions, in the memory of each process.

The table is small: a credential lives for at most a day, so older revocations concern none. It is loaded at start and
then polled every second; a NOTIFY only makes the next poll come at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import asyncpg
import structlog

from servicekit.auth.tokens import LEEWAY_S, MAX_LIFETIME_S

SESSION = "session"
"""Revocation type of one signed-in session: its tokens are dead whenever they were issued."""
OVERLAP = timedelta(seconds=30)
"""Each poll looks this far behind the newest row it has seen: rows become visible in the order of commits, not of
`updated_at`."""


log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Revocation:
    """Credentials of the principal issued before `not_before` are dead."""

    principal_type: str
    principal_id: str
    not_before: datetime
    updated_at: datetime


class RevocationSource(Protocol):
    """Where a process reads revocations: the replica table, or at identity its own table."""

    async def revocations_since(self, connection: asyncpg.Connection[Any], moment: datetime) -> Sequence[Revocation]:
        """The rows with `updated_at >= moment`, the database's clock."""


class Revocations:
    """The in-memory table. `apply` feeds it; `is_revoked` costs two dictionary lookups."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._not_before: dict[tuple[str, str], float] = {}
        self._listeners: list[Callable[[str, str], None]] = []
        self._newest: datetime | None = None

    def __len__(self) -> int:
        return len(self._not_before)

    def is_revoked(self, principal_type: str, principal_id: str, issued_at: float) -> bool:
        """Whether a credential of this principal issued at `issued_at` (Unix seconds) is dead.

        `issued_at` in whole seconds is taken as the start of its second, so that a token of the same second as the
        revocation dies; an issuer who signs anew within that second sets `iat` not before the revocation.
        """
        not_before = self._not_before.get((principal_type, principal_id))
        return not_before is not None and issued_at < not_before

    def session_revoked(self, session_id: str) -> bool:
        """Whether the session was ended."""
        return (SESSION, session_id) in self._not_before

    def on_revoked(self, listener: Callable[[str, str], None]) -> None:
        """`listener(principal_type, principal_id)` for each revocation that arrives from now on."""
        self._listeners.append(listener)

    def since(self) -> datetime:
        """From which `updated_at` on the next poll must read."""
        oldest = datetime.fromtimestamp(self._clock(), UTC) - timedelta(seconds=MAX_LIFETIME_S + LEEWAY_S)
        return oldest if self._newest is None else max(oldest, self._newest - OVERLAP)

    def apply(self, rows: Sequence[Revocation]) -> int:
        """Takes over rows; tells the listeners of those that are new or reach further. Returns how many."""
        fresh: list[Revocation] = []
        for row in rows:
            key = (row.principal_type, row.principal_id)
            not_before = row.not_before.timestamp()
            if self._newest is None or row.updated_at > self._newest:
                self._newest = row.updated_at
            if self._not_before.get(key, float("-inf")) < not_before:
                self._not_before[key] = not_before
                fresh.append(row)
        for row in fresh:
            for listener in self._listeners:
                try:
                    listener(row.principal_type, row.principal_id)
                except Exception:
                    log.exception("revocation_listener_failed")
        return len(fresh)

    def prune(self) -> None:
        """Forgets what concerns no credential that can still be alive."""
        oldest = self._clock() - MAX_LIFETIME_S - LEEWAY_S
        for key in [key for key, not_before in self._not_before.items() if not_before < oldest]:
            del self._not_before[key]
