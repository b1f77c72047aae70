"""The loop of one durable: a batch in one transaction, acknowledged after its commit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import structlog
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import APIError, NotFoundError

from servicekit import telemetry
from servicekit.clock import utc_now
from servicekit.db import Database, Tx
from servicekit.db.failures import is_away
from servicekit.events import deadletters, metrics
from servicekit.events.bus import Bus
from servicekit.events.consumers import OneByOne, Source, event_context
from servicekit.events.envelope import REPLAY_FOR, Event, Permanent
from servicekit.events.feed import PullFeed

DEFAULT_ACK_WAIT_S = 30.0
DEFAULT_MAX_DELIVER = 8
BACKOFF_METADATA = "omoios-backoff-s"
MAX_DELIVER_METADATA = "omoios-max-deliver"
"""The limit is kept here and not given to the server, which would only fall silent: a message whose last delivery is
given back, because the dead letters cannot be written, would never come again."""
RETRY_S = 1.0

# A row that this statement made has no `xmax`; one that was there is kept for as long again.
_INBOX = """
INSERT INTO inbox (event_id, consumer)
SELECT DISTINCT e.id, $2 FROM unnest($1::uuid[]) AS e(id) ORDER BY e.id
ON CONFLICT (event_id, consumer) DO UPDATE SET handled_at = excluded.handled_at
RETURNING event_id, xmax = 0 AS fresh
"""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivered message and what it carries."""

    message: Msg
    event: Event[Any]


class ConsumerLoop:
    """Handles the events of one durable in their order, in this process."""

    def __init__(self, bus: Bus, database: Database, source: Source, durable: str) -> None:
        self._bus = bus
        self._database = database
        self._source = source
        self._durable = durable
        self._feed = PullFeed(bus, source.stream, durable)
        self._ack_wait_s = DEFAULT_ACK_WAIT_S
        self._max_deliver = DEFAULT_MAX_DELIVER
        self._backoff_s: list[float] = [1.0]
        self._bound_to: object | None = None
        self._stopping = False
        self.bound = False
        self.handling = False

    async def run(self) -> None:
        """Run until `stop()`; a durable that does not exist yet, and NATS away, only make it wait."""
        forget = self._bus.on_connect(self._feed.interrupted)
        try:
            while not self._stopping:
                try:
                    await self._bus.wait_connected()
                    if self._bound_to is not self._bus.client:
                        await self._bind()
                    deliveries = await self._feed.take(timeout_s=5.0)
                    if deliveries:
                        self.handling = True
                        await self._handle(deliveries)
                except NotFoundError:
                    self.bound = False
                    self._bound_to = None
                    _log.warning("durable_missing", durable=self._durable, stream=self._source.stream)
                    await asyncio.sleep(RETRY_S)
                except (NatsError, APIError, TimeoutError, ConnectionError) as error:
                    _log.warning("consumer_interrupted", durable=self._durable, error=repr(error))
                    await asyncio.sleep(RETRY_S)
                except Exception:
                    _log.exception("consumer_failed", durable=self._durable)
                    await asyncio.sleep(RETRY_S)
                finally:
                    self.handling = False
        finally:
            forget()
            await self._feed.close()

    def stop(self, task: asyncio.Task[None]) -> None:
        """End `task`, which runs `run()`: at once when nothing is being handled, else after this batch."""
        self._stopping = True
        if not self.handling:
            task.cancel()

    async def _bind(self) -> None:
        info = await self._bus.js.consumer_info(self._source.stream, self._durable)
        config = info.config
        if config is not None:
            self._ack_wait_s = config.ack_wait or DEFAULT_ACK_WAIT_S
            metadata = config.metadata or {}
            self._max_deliver = int(metadata.get(MAX_DELIVER_METADATA, DEFAULT_MAX_DELIVER))
            self._backoff_s = [float(item) for item in metadata.get(BACKOFF_METADATA, "1").split(",")]
        await self._feed.open()
        self._bound_to = self._bus.client
        self.bound = True

    async def _handle(self, messages: Sequence[Msg]) -> None:
        with self._heartbeat(messages):
            deliveries: list[Delivery] = []
            for message in messages:
                headers = message.headers or {}
                if headers.get(REPLAY_FOR, self._durable) != self._durable:
                    await message.ack()
                    continue
                delivered = message.metadata.num_delivered
                if delivered > self._max_deliver:
                    # Each of them ended without a word: the process died in it.
                    await self._bury(message, f"no outcome after {delivered - 1} deliveries")
                    continue
                try:
                    deliveries.append(Delivery(message, Event(headers, message.subject, message.data)))
                except Permanent as error:
                    await self._bury(message, str(error))
            if deliveries:
                await self._handle_events(deliveries)

    async def _handle_events(self, deliveries: Sequence[Delivery]) -> None:
        error = await self._attempt(deliveries)
        if error is None:
            return
        if len(deliveries) == 1:
            await self._give_back(deliveries[0], error)
            return
        for delivery in deliveries:
            alone = await self._attempt([delivery])
            if alone is not None:
                await self._give_back(delivery, alone)

    async def _attempt(self, deliveries: Sequence[Delivery]) -> Exception | None:
        """Handle all in one transaction and acknowledge after its commit; return why nothing was done.

        While the database is away this waits and tries again: the messages stay ours and no delivery is used up.
        """
        while True:
            try:
                fresh = await self._commit(deliveries)
            except Exception as error:
                if is_away(error) and not self._stopping:
                    await asyncio.sleep(RETRY_S)
                    continue
                return error
            for delivery in deliveries:
                await delivery.message.ack()
            self._measure(deliveries, fresh)
            return None

    async def _commit(self, deliveries: Sequence[Delivery]) -> int:
        events: dict[str, Event[Any]] = {}
        for delivery in deliveries:
            events.setdefault(delivery.event.id, delivery.event)
        async with self._database.uow() as tx:
            connection = await tx.connection()
            rows = await connection.fetch(_INBOX, list(events), self._durable)
            fresh = {str(row["event_id"]) for row in rows if row["fresh"]}
            await self._dispatch(tx, [event for event in events.values() if event.id in fresh])
        return len(fresh)

    async def _dispatch(self, tx: Tx, events: Sequence[Event[Any]]) -> None:
        for handler, group in groupby(events, key=lambda event: self._source.handler_of(event.type)):
            if handler is None:
                continue
            together = list(group)
            for part in [[event] for event in together] if isinstance(handler, OneByOne) else [together]:
                first = part[0]
                with (
                    event_context(first),
                    telemetry.span(f"{self._durable} {first.type}", kind="consumer", parent=first.traceparent or ""),
                ):
                    await handler(tx, part)

    async def _give_back(self, delivery: Delivery, error: Exception) -> None:
        delivered = delivery.message.metadata.num_delivered
        if isinstance(error, Permanent):
            await self._bury(delivery.message, str(error))
        elif delivered >= self._max_deliver:
            reason = f"gave up after {delivered} deliveries: {type(error).__name__}: {error}"
            await self._bury(delivery.message, reason, error)
        else:
            metrics.retried.labels(self._durable).inc()
            delay = self._backoff_s[min(delivered, len(self._backoff_s)) - 1]
            _log.warning(
                "event_retried",
                durable=self._durable,
                about=repr(delivery.event),
                delivered=delivered,
                delay_s=delay,
                error=repr(error),
            )
            await delivery.message.nak(delay=delay)

    async def _bury(self, message: Msg, reason: str, error: Exception | None = None) -> None:
        """Move a message to the dead letters; when that fails it comes back later, so that it is never lost."""
        try:
            await deadletters.bury(self._bus, message, self._durable, reason)
        except (NatsError, APIError, TimeoutError, ConnectionError) as failure:
            _log.warning("dead_letter_failed", durable=self._durable, error=repr(failure))
            await message.nak(delay=self._backoff_s[-1])
            return
        metrics.dead_letters.labels(self._durable).inc()
        _log.error("event_dead", durable=self._durable, subject=message.subject, reason=reason, exc_info=error)
        await message.term()

    @contextmanager
    def _heartbeat(self, messages: Sequence[Msg]) -> Iterator[None]:
        """Tell the server that the work goes on, three times within its patience."""
        loop = asyncio.get_running_loop()
        beating: set[asyncio.Task[None]] = set()
        interval = self._ack_wait_s / 3

        async def beat() -> None:
            if self._bus.is_connected:
                for message in [*messages, *self._feed.buffered]:
                    if not message._ackd:
                        await message.in_progress()

        def tick() -> None:
            task = loop.create_task(beat())
            beating.add(task)
            task.add_done_callback(beating.discard)
            timers.append(loop.call_later(interval, tick))

        timers = [loop.call_later(interval, tick)]
        try:
            yield
        finally:
            timers[-1].cancel()

    def _measure(self, deliveries: Sequence[Delivery], fresh: int) -> None:
        metrics.consumed.labels(self._durable).inc(fresh)
        if fresh < len(deliveries):
            metrics.duplicates.labels(self._durable).inc(len(deliveries) - fresh)
        last = deliveries[-1]
        metrics.lag.labels(self._durable).observe(max(0.0, (utc_now() - last.event.time).total_seconds()))
        metrics.pending.labels(self._durable).set(last.message.metadata.num_pending)
