"""Event streams: who may have one, from where it starts, and when it ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import structlog

from monitoring_service.errors import STREAMS_EXHAUSTED
from monitoring_service.event_streams.fanout_service import End, Ended, FanOut, Subscription, frames_in
from monitoring_service.event_streams.filter_rules import BadFilter, Filters, Grants, from_query, grants_of, subscribed
from monitoring_service.event_streams.log_service import EventLog
from monitoring_service.settings import Settings
from servicekit.auth import Principal
from servicekit.auth.authenticator import Authenticator
from servicekit.auth.websocket import CredentialWatch, EndReason
from servicekit.errors import AppError

# Pages of past events that are read at the same time, so that many clients coming back do not starve the rest.
_CATCHING_UP = 4
_TURN = 100

__all__ = ["BadFilter", "End", "Ended", "EventStreams", "Filters", "Stream", "from_query", "subscribed"]

RESET = '{"type":"reset"}'

_log = structlog.get_logger(__name__)


class Stream:
    """One open stream of one client: `texts()` gives its frames, first what it missed, then live ones."""

    def __init__(self, streams: EventStreams, principal: Principal, subscription: Subscription, past: bool) -> None:
        self.principal = principal
        self.subscription = subscription
        self._streams = streams
        self._past = past

    @property
    def ended(self) -> asyncio.Future[End]:
        """Resolves when the server ends the stream."""
        return self.subscription.ended

    async def texts(self, idle_s: float) -> AsyncGenerator[list[tuple[int, str]], None]:
        """Frames with their numbers in the order of the log; an empty list after `idle_s` without one.

        Raises `Ended`. A reset has the number from which the live frames go on.
        """
        if self._past:
            async for texts in self._streams.past(self.subscription):
                yield texts
        while True:
            yield await self.subscription.take(idle_s)

    def narrow(self, filters: Filters) -> None:
        """Replace the filters; they hold for what is read from the log from now on."""
        self.subscription.filters = filters

    async def recheck(self) -> None:
        """Read the memberships again; a lost notification must not keep a removed member listening."""
        await self._streams.recheck(self)


class EventStreams:
    """All open streams of this process."""

    def __init__(self, log: EventLog, fanout: FanOut, settings: Settings) -> None:
        self._log = log
        self._fanout = fanout
        self._settings = settings
        self._streams: dict[str, set[Stream]] = {}
        self._per_user: Counter[str] = Counter()
        self._catching_up = asyncio.Semaphore(_CATCHING_UP)
        self._authenticator: Authenticator | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The life of the fan-out; a lifespan of the process."""
        try:
            yield
        finally:
            await self._fanout.close()
            await self._log.hint.close()

    @property
    def settings(self) -> Settings:
        """Paces and limits of streams."""
        return self._settings

    @asynccontextmanager
    async def open(
        self, authenticator: Authenticator, principal: Principal, filters: Filters, after: int | None
    ) -> AsyncIterator[Stream]:
        """A stream from now on, or from the event after number `after`.

        Raises `monitoring.streams_exhausted` (503) at the limits and while the process stops, UNAVAILABLE without the
        database.
        """
        owner = principal.member_id or principal.id
        if self._stopping or sum(self._per_user.values()) >= self._settings.streams_max:
            raise STREAMS_EXHAUSTED()
        if self._per_user[owner] >= self._settings.streams_per_user_max:
            raise STREAMS_EXHAUSTED("This user has too many event streams open.")
        self._watch_memberships(authenticator)
        self._per_user[owner] += 1
        stream: Stream | None = None
        try:
            stream = await self._started(principal, filters, after)
            self._streams.setdefault(owner, set()).add(stream)
            with CredentialWatch(authenticator, principal) as watch:
                watch.ended.add_done_callback(lambda ended: _credential_ended(stream, ended))
                # A change of memberships since they were read was told to nobody.
                await self.recheck(stream)
                yield stream
        finally:
            self._per_user[owner] -= 1
            if not self._per_user[owner]:
                del self._per_user[owner]
            if stream is not None:
                self._fanout.leave(stream.subscription)
                self._streams[owner].discard(stream)
                if not self._streams[owner]:
                    del self._streams[owner]

    async def _started(self, principal: Principal, filters: Filters, after: int | None) -> Stream:
        grants = _grants(principal)
        if after is not None and await self._log.can_resume(after):
            return Stream(self, principal, Subscription(filters, grants, after, self._settings), past=True)
        subscription = Subscription(filters, grants, 0, self._settings)
        while True:
            subscription.position = await self._log.head()
            if self._fanout.join(subscription):
                break
        if after is not None:
            subscription.put(subscription.position, RESET)
        return Stream(self, principal, subscription, past=False)

    async def past(self, subscription: Subscription) -> AsyncGenerator[list[tuple[int, str]], None]:
        """What the log holds after the subscription's position, until the live frames go on from there."""
        while True:
            async with self._catching_up:
                page = await self._log.past(subscription.position, list(subscription.grants))
            for event in page.events:
                texts: list[tuple[int, str]] = []
                for sequence, frame in frames_in(event):
                    if sequence > subscription.position and subscription.sees(frame, event.organization_id):
                        texts.append((sequence, frame.text(sequence)))
                    if len(texts) >= _TURN:
                        yield texts
                        texts = []
                if texts:
                    yield texts
                subscription.position = event.last_sequence
                if subscription.ended.done():
                    raise Ended(subscription.ended.result())
                await asyncio.sleep(0)
            subscription.position = max(subscription.position, page.upto)
            if not page.more and self._fanout.join(subscription):
                return

    async def recheck(self, stream: Stream) -> None:
        """Give a stream what its principal may read now; ends it when that is nothing any more."""
        member = stream.principal.member_id
        if member is None or self._authenticator is None:
            return
        try:
            memberships = await self._authenticator.memberships.of(member)
        except AppError as error:
            _log.warning("memberships_not_read", error=error.detail)
            return
        only = stream.principal.claims.get("organization_id")
        if isinstance(only, str):
            memberships = {key: value for key, value in memberships.items() if key == only}
        stream.principal = replace(stream.principal, memberships=memberships)
        before, stream.subscription.grants = stream.subscription.grants, _grants(stream.principal)
        self._fanout.index(stream.subscription)
        if before and not stream.subscription.grants:
            stream.subscription.end(End.REMOVED)

    def stop(self) -> None:
        """Let all streams go; called when the process begins to stop."""
        self._stopping = True
        for streams in list(self._streams.values()):
            for stream in streams:
                stream.subscription.end(End.STOPPING)

    def _watch_memberships(self, authenticator: Authenticator) -> None:
        if self._authenticator is not authenticator:
            self._authenticator = authenticator
            authenticator.on_memberships_changed(self._memberships_changed)

    def _memberships_changed(self, user_id: str) -> None:
        for stream in self._streams.get(user_id, ()):
            task = asyncio.get_running_loop().create_task(self.recheck(stream), name="stream-recheck")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


def _credential_ended(stream: Stream, ended: asyncio.Future[EndReason]) -> None:
    if not ended.cancelled():
        stream.subscription.end(End.EXPIRED if ended.result() == "expired" else End.REVOKED)


def _grants(principal: Principal) -> Grants:
    return grants_of(list(principal.memberships), principal.can)
