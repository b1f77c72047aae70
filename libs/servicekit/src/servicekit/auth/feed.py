"""How changes of access reach every process: LISTEN, plus a poll of the revocations every second.

The poll is what counts; a notification only makes it come at once. After a lost connection the membership cache is
emptied, since notifications may have been missed.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Protocol

import asyncpg
import structlog

from servicekit import clock
from servicekit.auth.memberships import MembershipDirectory
from servicekit.auth.revocations import Revocations, RevocationSource
from servicekit.tasks import cancel

MEMBERSHIPS_CHANNEL = "omoios_memberships"
"""NOTIFY channel; the payload is the user id."""
REVOCATIONS_CHANNEL = "omoios_revocations"
"""NOTIFY channel without a payload."""
POLL_INTERVAL_S = 1.0
PRUNE_INTERVAL_S = 600.0
RECONNECT_MIN_S = 0.2
RECONNECT_MAX_S = 2.0
CLOCK_WARNING_S = 1.0
START_TIMEOUT_S = 5.0
"""How long `start` waits for the first load; a database that comes later is waited for in the background."""

log = structlog.get_logger(__name__)


class Connects(Protocol):
    """The part of `servicekit.db.Database` that the feed uses."""

    async def connect(self, purpose: str, **server_settings: str) -> asyncpg.Connection[Any]:
        """A connection outside the pool; the caller closes it."""


class AccessFeed:
    """Keeps `revocations` and the cache of `memberships` up to date in this process."""

    def __init__(
        self,
        database: Connects,
        source: RevocationSource,
        revocations: Revocations,
        memberships: MembershipDirectory,
        *,
        poll_interval_s: float = POLL_INTERVAL_S,
    ) -> None:
        self._database = database
        self._source = source
        self._revocations = revocations
        self._memberships = memberships
        self._poll_interval_s = poll_interval_s
        self._wake = asyncio.Event()
        self._loaded = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._pruned_at = time.monotonic()

    async def start(self) -> None:
        """Loads the revocations and starts listening."""
        self._task = asyncio.create_task(self._run(), name="access-feed")
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._loaded.wait()
        except TimeoutError:
            log.warning("access_feed_not_loaded_yet")

    async def close(self) -> None:
        """Stops and closes the connection."""
        task, self._task = self._task, None
        if task is not None:
            await cancel([task])

    async def _run(self) -> None:
        pause = RECONNECT_MIN_S
        while True:
            connected_at = time.monotonic()
            try:
                connection = await self._database.connect("access-feed")
                try:
                    await self._follow(connection)
                finally:
                    await _let_go(connection)
            except Exception as error:
                # Whatever it is, the process must go on learning of revocations.
                if time.monotonic() - connected_at > RECONNECT_MAX_S:
                    pause = RECONNECT_MIN_S
                log.warning("access_feed_interrupted", error=repr(error), again_in_s=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, RECONNECT_MAX_S)

    async def _follow(self, connection: asyncpg.Connection[Any]) -> None:
        await connection.add_listener(MEMBERSHIPS_CHANNEL, self._membership_changed)
        await connection.add_listener(REVOCATIONS_CHANNEL, self._revocation_arrived)
        self._memberships.clear()
        while True:
            self._wake.clear()
            await _look_at_clock(connection)
            rows = await self._source.revocations_since(connection, self._revocations.since())
            self._revocations.apply(rows)
            self._loaded.set()
            if time.monotonic() - self._pruned_at > PRUNE_INTERVAL_S:
                self._pruned_at = time.monotonic()
                self._revocations.prune()
            try:
                async with asyncio.timeout(self._poll_interval_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _membership_changed(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self._memberships.changed(str(payload))

    def _revocation_arrived(self, _connection: object, _pid: int, _channel: str, _payload: object) -> None:
        self._wake.set()


async def _look_at_clock(connection: asyncpg.Connection[Any]) -> None:
    before = time.time()
    database = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    corrected = clock.correction_s()
    clock.correct(before, database, time.time())
    if abs(clock.correction_s() - corrected) > CLOCK_WARNING_S:
        log.warning("clock_differs_from_the_database", seconds=round(clock.correction_s(), 3))


async def _let_go(connection: asyncpg.Connection[Any]) -> None:
    try:
        await connection.close(timeout=1.0)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()
