"""The outbox relay: one leader per database brings committed events to JetStream, in order, at least once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import structlog
from nats.errors import Error as NatsError
from nats.js.errors import APIError, NotFoundError

from servicekit.db import Database
from servicekit.db.failures import is_transient
from servicekit.db.outbox import CHANNEL
from servicekit.events import metrics
from servicekit.events.bus import Bus
from servicekit.events.publishing import MAX_BATCH, MAX_BATCH_BYTES, publish
from servicekit.events.readers import LOOK_S, StreamReaders

# Locks are per database; this one is "relay" read as a number.
LEADER_LOCK = 0x72656C6179
POLL_S = 0.5
# PostgreSQL ends a leader's session that says nothing for this long: a frozen process loses its lock.
IDLE_LIMIT_MS = 5_000
STANDBY_S = 1.0
MEASURE_S = 5.0
# A stream younger than a published row never had it. The clocks of both servers may differ by this much; what is sent
# again without need is absorbed as a duplicate.
CLOCK_MARGIN = timedelta(seconds=5)

# Packed facts are up to 1 MB each: a batch is bounded in bytes, too, and always has one row.
_SELECT = f"""
SELECT seq, event_id, subject, aggregate_type, aggregate_id, version, organization_id, correlation_id, causation_id,
       traceparent, occurred_at, payload
FROM (
    SELECT *, sum(octet_length(payload)) OVER (ORDER BY seq) - octet_length(payload) AS before
    FROM (SELECT * FROM outbox WHERE published_at IS NULL ORDER BY seq LIMIT {MAX_BATCH}) AS waiting
) AS measured
WHERE before < {MAX_BATCH_BYTES} ORDER BY seq
"""
_MARK = "UPDATE outbox SET published_at = clock_timestamp() WHERE seq = ANY($1::bigint[])"
_MEASURE = """
SELECT count(*) AS pending, coalesce(extract(epoch FROM clock_timestamp() - min(occurred_at)), 0)::float8 AS oldest
FROM (SELECT occurred_at FROM outbox WHERE published_at IS NULL ORDER BY seq LIMIT 100000) AS waiting
"""
# What was published before a moment is a prefix of the sequence, so the walk ends at the first window without any.
_UNPUBLISH = """
WITH part AS (SELECT seq, published_at FROM outbox WHERE seq > $2 ORDER BY seq LIMIT 10000),
     undone AS (UPDATE outbox SET published_at = NULL
                WHERE seq IN (SELECT seq FROM part WHERE published_at < $1) RETURNING seq)
SELECT (SELECT max(seq) FROM part) AS last, (SELECT count(*) FROM undone) AS undone
"""

_log = structlog.get_logger(__name__)


class Relay:
    """`run()` competes for leadership and relays while it leads; several may run, in one process or in many."""

    def __init__(self, database: Database, bus: Bus, service: str, *, idle_limit_ms: int = IDLE_LIMIT_MS) -> None:
        self._database = database
        self._bus = bus
        self._stream = service.upper()
        self._idle_limit_ms = idle_limit_ms
        self._wake = asyncio.Event()
        self._reconnected = True
        self._readers = StreamReaders(bus, self._stream)
        self.leads = False

    async def run(self) -> None:
        """Run until cancelled; a lost database or NATS only makes it wait."""
        forget = self._bus.on_connect(self._on_connect)
        try:
            while True:
                try:
                    await self._compete()
                except Exception as error:
                    if not is_transient(error):
                        _log.exception("relay_failed")
                await asyncio.sleep(STANDBY_S)
        finally:
            forget()

    def wake(self) -> None:
        """Look at the outbox now."""
        self._wake.set()

    def _on_connect(self) -> None:
        self._reconnected = True
        self._wake.set()

    async def _compete(self) -> None:
        connection = await self._database.connect(
            "relay",
            idle_session_timeout=str(self._idle_limit_ms),
            # A mark that a crash of PostgreSQL takes back only has its events sent again.
            synchronous_commit="off",
        )
        try:
            while True:
                if await connection.fetchval("SELECT pg_try_advisory_lock($1)", LEADER_LOCK):
                    break
                await asyncio.sleep(STANDBY_S)
            self.leads = True
            self._reconnected = True
            metrics.relay_leading.set(1)
            self._database.outbox_hint.lead_locally(self.wake)
            await connection.add_listener(CHANNEL, lambda *_: self._wake.set())
            _log.info("relay_leads", database=self._database.name)
            await self._relay(connection)
        finally:
            if self.leads:
                self.leads = False
                metrics.relay_leading.set(0)
                self._database.outbox_hint.lead_locally(None)
            await _close(connection)

    async def _relay(self, connection: asyncpg.Connection[Any]) -> None:
        measured = looked = 0.0
        while True:
            self._wake.clear()
            rows = await connection.fetch(_SELECT)
            now = time.monotonic()
            if now - measured >= MEASURE_S:
                measured = now
                await self._measure(connection)
            sent = 0
            if self._bus.is_connected:
                try:
                    if self._reconnected:
                        await self._restore(connection)
                        continue
                    if rows:
                        acked = await publish(self._bus, rows)
                        await connection.execute(_MARK, acked)
                        sent = len(acked)
                        metrics.relayed.inc(sent)
                    if now - looked >= (POLL_S if self._readers.busy else LOOK_S):
                        looked = now
                        await self._readers.look(connection)
                except (NatsError, APIError, TimeoutError, ConnectionError) as error:
                    # The stream may be gone or made anew.
                    self._reconnected = True
                    _log.warning("relay_publish_failed", error=repr(error))
            if rows and sent == len(rows):
                continue
            if rows:
                # Something is wrong with NATS: no hint may turn the retries into a busy loop.
                await asyncio.sleep(POLL_S)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()

    async def _restore(self, connection: asyncpg.Connection[Any]) -> None:
        """Send again what an older stream of this name had: JetStream was wiped or the stream made anew."""
        try:
            info = await self._bus.js.stream_info(self._stream)
        except NotFoundError:
            raise ConnectionError(f"there is no stream {self._stream} yet") from None
        self._reconnected = False
        created = info.created
        if created is None:
            return
        count = await unpublish(connection, created + CLOCK_MARGIN)
        if count:
            _log.warning("relay_republishes", stream=self._stream, events=count)

    async def _measure(self, connection: asyncpg.Connection[Any]) -> None:
        row = await connection.fetchrow(_MEASURE)
        assert row is not None
        metrics.outbox_pending.set(row["pending"])
        metrics.outbox_oldest_seconds.set(max(0.0, row["oldest"]))


async def unpublish(connection: Any, before: datetime) -> int:
    """Have everything published before a moment sent again, oldest first; return how many rows that are."""
    total: int = 0
    last: int = 0
    while True:
        row = await connection.fetchrow(_UNPUBLISH, before, last)
        total += row["undone"]
        if not row["undone"]:
            return total
        last = row["last"]


async def _close(connection: asyncpg.Connection[Any]) -> None:
    """Close without waiting for a server that may be gone; the lock goes with the session."""
    try:
        await connection.close(timeout=1)
    except Exception:
        connection.terminate()
