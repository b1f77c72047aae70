"""Live fan-out in one process: follows the log and hands each frame, encoded once, to those who want it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from enum import StrEnum

import structlog

from monitoring_service.event_streams import store
from monitoring_service.event_streams.filter_rules import Filters, Grants
from monitoring_service.event_streams.frame_rules import Frame
from monitoring_service.event_streams.log_service import TAIL_WINDOW, EventLog
from monitoring_service.event_streams.mapping_rules import frames_of
from monitoring_service.event_streams.store import Logged
from monitoring_service.settings import Settings
from servicekit import telemetry
from servicekit.db import Database
from servicekit.events.registry import message_class_of

# The loop is given back after this many frames were looked at, so that a packed event does not hold up the rest.
_FRAMES_PER_TURN = 500
_RECONNECT_S = 0.5
TAKE_MAX = 256

_log = structlog.get_logger(__name__)
_delivered = telemetry.counter("event_stream_frames_total", "Frames handed to event streams.")
_dropped = telemetry.counter("event_streams_dropped_total", "Event streams ended by the server.", ("reason",))
_open = telemetry.gauge("event_streams_open", "Event streams that are open now.")
_lag = telemetry.histogram("event_stream_lag_seconds", "Time from an event's commit at its service to the fan-out.")


class End(StrEnum):
    """Why the server ends a stream."""

    SLOW = "slow"
    EXPIRED = "expired"
    REVOKED = "revoked"
    REMOVED = "removed"
    STOPPING = "stopping"


class Ended(Exception):
    """The stream is over."""

    def __init__(self, reason: End) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Subscription:
    """One client's stream: what it wants, what it may see, and what waits for it.

    `position`: the last number of the log that it needs no more.
    """

    def __init__(self, filters: Filters, grants: Grants, position: int, settings: Settings) -> None:
        self.filters = filters
        self.grants = grants
        self.position = position
        self.ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._frames_max = settings.stream_queue_frames
        self._bytes_max = settings.stream_queue_bytes
        self._queue: deque[tuple[int, str]] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()

    def sees(self, frame: Frame, organization_id: str) -> bool:
        """Whether the client may read the frame and wants it."""
        granted = self.grants.get(organization_id)
        return granted is not None and frame.permission in granted and self.filters.match(frame)

    def put(self, sequence: int, text: str) -> None:
        """Queue a text; a client for which too much waits is at its end."""
        if self.ended.done():
            return
        self._bytes += len(text)
        if len(self._queue) >= self._frames_max or (self._bytes > self._bytes_max and self._queue):
            self.end(End.SLOW)
            return
        self._queue.append((sequence, text))
        self._arrived.set()

    def end(self, reason: End) -> None:
        """End the stream; what waits is dropped."""
        if not self.ended.done():
            self.ended.set_result(reason)
            _dropped.labels(reason.value).inc()
        self._queue.clear()
        self._bytes = 0
        self._arrived.set()

    async def take(self, timeout_s: float) -> list[tuple[int, str]]:
        """What waits, at most 256 texts with their numbers; empty after `timeout_s`. Raises `Ended`."""
        if not self._queue and not self.ended.done():
            self._arrived.clear()
            try:
                async with asyncio.timeout(max(timeout_s, 0)):
                    await self._arrived.wait()
            except TimeoutError:
                return []
        if self.ended.done():
            raise Ended(self.ended.result())
        found = [self._queue.popleft() for _ in range(min(TAKE_MAX, len(self._queue)))]
        self._bytes -= sum(len(text) for _, text in found)
        return found


def frames_in(event: Logged) -> Iterator[tuple[int, Frame]]:
    """The frames of a logged event with their numbers; none for an event that these contracts do not know."""
    message_class = message_class_of(event.subject)
    if message_class is None:
        return
    frames = frames_of(event.subject, message_class.FromString(event.payload), event.occurred_at)
    for place, frame in enumerate(frames):
        # A newer version of the mapping may make more frames than the event was given numbers for.
        yield min(event.first_sequence + place, event.last_sequence), frame


class FanOut:
    """Follows the log for all subscriptions of this process. Nothing is read while there is none."""

    def __init__(self, db: Database, log: EventLog, settings: Settings) -> None:
        self._db = db
        self._log = log
        self._poll_s = settings.stream_poll_s
        self._by_organization: dict[str, set[Subscription]] = {}
        self._all: set[Subscription] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._position = 0
        # Counts up when an organization comes in: a page read before that lacks its events.
        self._generation = 0
        _open.set_function(lambda: len(self._all))
        log.hint.on_growth(self._wake.set)

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(list(self._all))

    def join(self, subscription: Subscription) -> bool:
        """Take a subscription in if it has all that went by; no frame is missed from then on, and none comes twice.

        Returns False when the log was followed further than the subscription's position.
        """
        if self._all:
            if subscription.position < self._position:
                return False
        else:
            self._position = subscription.position
        self._all.add(subscription)
        self.index(subscription)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="event-fan-out")
        self._wake.set()
        return True

    def leave(self, subscription: Subscription) -> None:
        """Forget a subscription."""
        self._all.discard(subscription)
        for organization in list(self._by_organization):
            members = self._by_organization[organization]
            members.discard(subscription)
            if not members:
                del self._by_organization[organization]

    def index(self, subscription: Subscription) -> None:
        """Take note of the organizations that a joined subscription has grants in."""
        if subscription not in self._all:
            return
        for organization in [key for key, members in self._by_organization.items() if subscription in members]:
            if organization not in subscription.grants:
                self._by_organization[organization].discard(subscription)
        for organization in subscription.grants:
            members = self._by_organization.get(organization)
            if members is None:
                members = self._by_organization[organization] = set()
                self._generation += 1
            members.add(subscription)

    async def close(self) -> None:
        """End all streams and stop following."""
        for subscription in self:
            subscription.end(End.STOPPING)
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                connection = await self._db.connect("event-fan-out")
                try:
                    await connection.add_listener(store.CHANNEL, self._grown)
                    while not connection.is_closed():
                        await self._follow()
                finally:
                    connection.terminate()
            except Exception as error:
                # Whatever it is, the streams must go on; the position stays where it is.
                _log.warning("fan_out_interrupted", error=repr(error))
                await asyncio.sleep(_RECONNECT_S)

    def _grown(self, _connection: object, _pid: int, _channel: str, _payload: object) -> None:
        self._wake.set()

    async def _follow(self) -> None:
        self._wake.clear()
        more = bool(self._all)
        while more:
            generation = self._generation
            page = await self._log.tail(self._position, self._by_organization)
            if generation != self._generation:
                continue
            # A look that covered its whole window may not have seen the end.
            more = page.more or page.upto >= self._position + TAIL_WINDOW
            if not await self._publish(page.events, generation):
                more = True
                continue
            self._position = max(self._position, page.upto)
        try:
            async with asyncio.timeout(self._poll_s):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _publish(self, events: Sequence[Logged], generation: int) -> bool:
        """Hand events out; False when an organization came in meanwhile, whose events are not among them."""
        looked_at = 0
        now = time.time()
        for event in events:
            looked_at += self._deliver(event)
            self._position = event.last_sequence
            _lag.observe(max(0.0, now - event.occurred_at.timestamp()))
            if looked_at >= _FRAMES_PER_TURN:
                looked_at = 0
                await asyncio.sleep(0)
                if generation != self._generation:
                    return False
        return True

    def _deliver(self, event: Logged) -> int:
        members = self._by_organization.get(event.organization_id)
        if not members:
            return 0
        looked_at = delivered = 0
        readers = [item for item in members if item.position < event.last_sequence]
        try:
            for sequence, frame in frames_in(event):
                looked_at += 1
                for reader in readers:
                    if sequence > reader.position and reader.sees(frame, event.organization_id):
                        reader.put(sequence, frame.text(sequence))
                        delivered += 1
        except Exception as error:
            # One event that cannot be shown must not end the stream of all others.
            _log.exception("event_not_shown", subject=event.subject, sequence=event.last_sequence, error=repr(error))
        for reader in readers:
            reader.position = event.last_sequence
        _delivered.inc(delivered)
        return looked_at
