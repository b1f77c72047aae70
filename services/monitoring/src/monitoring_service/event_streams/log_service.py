"""The event log: everything that every service says, numbered in the order of its commits, kept for a day."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, timedelta
from typing import Any

import structlog

from monitoring_service.event_streams import store
from monitoring_service.event_streams.mapping_rules import KINDS, PACKED, frames_of
from monitoring_service.event_streams.store import Entry, LogPage
from monitoring_service.settings import Settings
from servicekit.clock import utc_now
from servicekit.db import Database, Tx
from servicekit.events import Event
from servicekit.events.registry import message_class_of

TOLD = frozenset({*KINDS, *PACKED})
"""The events that become frames; of the others the log is a record."""
DAYS_AHEAD = 3
PAGE_EVENTS = 200
TAIL_WINDOW = 20_000
"""Numbers that one look at the end of the log covers at most; a packed event takes up to some hundred."""
PAGE_BYTES = 4 * 1024 * 1024
_HINT_INTERVAL_S = 0.01

_log = structlog.get_logger(__name__)


class LogHint:
    """Tells the followers that the log grew; a hint that is lost costs them one poll, nothing else.

    The NOTIFY is a statement of its own, at most one per 10 ms and process, because PostgreSQL holds one lock per
    cluster from a transaction's NOTIFY until its commit is on disk.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._local: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def on_growth(self, wake: Callable[[], None]) -> None:
        """Have `wake` called after each commit in this process."""
        self._local.append(wake)

    def committed(self) -> None:
        """Announce a commit. Call it on the event loop."""
        for wake in self._local:
            wake()
        if self._task is not None and not self._task.done():
            self._again = True
            return
        self._task = asyncio.get_running_loop().create_task(self._notify(), name="log-hint")

    async def _notify(self) -> None:
        while True:
            self._again = False
            try:
                await self._db.notify(store.CHANNEL)
            except Exception as error:
                # The followers poll.
                _log.warning("log_hint_failed", error=repr(error))
            await asyncio.sleep(_HINT_INTERVAL_S)
            if not self._again:
                return

    async def close(self) -> None:
        """Stop announcing."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


class EventLog:
    """Appends what consumers bring and reads it again by number."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._keep = timedelta(hours=settings.event_log_hours)
        self.hint = LogHint(db)

    async def append(self, tx: Tx, events: Sequence[Event[Any]]) -> None:
        """Log events in this transaction; the inbox has seen to it that none comes twice."""
        await store.append(
            tx,
            [
                Entry(
                    width=width_of(event),
                    event_id=event.id,
                    subject=event.type,
                    aggregate_type=event.aggregate_type,
                    aggregate_id=event.aggregate_id,
                    version=event.version,
                    organization_id=event.organization_id,
                    correlation_id=event.correlation_id,
                    causation_id=event.causation_id,
                    occurred_at=event.time.astimezone(UTC),
                    payload=event.payload,
                )
                for event in events
            ],
        )
        tx.on_commit(self.hint.committed)

    async def tail(self, after: int, organizations: Collection[str]) -> LogPage:
        """The next events of these organizations after a number near the head: at most 200, and about 4 MiB."""
        async with self._db.reader() as tx:
            return await store.tail(tx, after, organizations, PAGE_EVENTS, PAGE_BYTES, TAIL_WINDOW)

    async def past(self, after: int, organizations: Collection[str]) -> LogPage:
        """The same after a number that may be far back."""
        async with self._db.reader() as tx:
            return await store.past(tx, after, organizations, PAGE_EVENTS, PAGE_BYTES)

    async def head(self) -> int:
        """The last number that was given."""
        async with self._db.reader() as tx:
            return await store.head(tx)

    async def can_resume(self, after: int) -> bool:
        """Whether everything after a number is still here and not older than the log is kept."""
        async with self._db.reader(snapshot=True) as tx:
            if after > await store.head(tx):
                return False
            following = await store.following(tx, after, self._keep.total_seconds())
            if following is None:
                return after == await store.head(tx)
        first, too_old = following
        return first <= after + 1 and not too_old

    async def keep_partitions(self) -> None:
        """Make the tables of today and the coming days, drop those of which every event is older than the log keeps."""
        now = utc_now()
        async with self._db.reader() as tx:
            there = await store.partitions(tx)
        for ahead in range(DAYS_AHEAD + 1):
            day = (now + timedelta(days=ahead)).date()
            if store.partition_name(day) not in there:
                async with self._db.uow(statement_timeout_s=60) as tx:
                    await store.make_partition(tx, day)
        oldest = store.partition_name((now - self._keep).date())
        for name in sorted(there):
            if name.removeprefix("event_log_").isdigit() and name < oldest:
                async with self._db.uow(statement_timeout_s=60) as tx:
                    await store.drop_partition(tx, name)
                _log.info("event_log_day_dropped", partition=name)


def width_of(event: Event[Any]) -> int:
    """How many numbers an event takes: one for each frame, one where it has none or is unknown here."""
    if message_class_of(event.type) is None:
        return 1
    return max(1, len(frames_of(event.type, event.body, event.time)))
