"""Leader locks: session advisory locks on one connection of their own per process.

The connection is pinged and has an ``idle_session_timeout``: a process that is frozen stops pinging, PostgreSQL ends
its session, and another instance leads. When the connection is lost, what runs under a lock is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from servicekit.logging import get_logger
from servicekit.ports import DatabasePart
from servicekit.tasks import cancel

_log = get_logger(__name__)

PING_S = 3.0
IDLE_LIMIT_S = 15


class LeadershipLost(Exception):
    """The lock's connection broke while the work ran; another instance may lead by now."""


class LeaderLocks:
    """Holds any number of locks by name. ``purpose`` names the connection in ``pg_stat_activity``."""

    def __init__(self, database: DatabasePart, purpose: str = "leader") -> None:
        self._database = database
        self._purpose = purpose
        self._connection: Any = None
        self._held: set[str] = set()
        self._running: dict[asyncio.Task[Any], str] = {}
        self._lost: set[asyncio.Task[Any]] = set()
        self._turn = asyncio.Lock()
        self._pinger: asyncio.Task[None] | None = None

    def held(self, name: str) -> bool:
        """Whether this process holds the lock, as far as it knows."""
        return name in self._held

    async def hold(self, name: str) -> bool:
        """Takes the lock unless it is held already; False while another instance has it."""
        async with self._turn:
            connection = self._connection
            if connection is None or connection.is_closed():
                self._drop()
                connection = self._connection = await self._database.connect(
                    self._purpose, idle_session_timeout=f"{IDLE_LIMIT_S}s"
                )
                connection.add_termination_listener(self._terminated)
                if self._pinger is None or self._pinger.done():
                    self._pinger = asyncio.create_task(self._ping(), name="leader-ping")
            if name in self._held:
                return True
            if await connection.fetchval("SELECT pg_try_advisory_lock(hashtextextended($1, 0))", f"leader:{name}"):
                self._held.add(name)
                _log.info("leads", lock=name)
                return True
            return False

    async def guarded(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        """Awaits ``work``; cancels it and raises LeadershipLost when the lock's connection breaks meanwhile."""
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self._running[task] = name
        try:
            await task
        except asyncio.CancelledError:
            if task in self._lost:
                raise LeadershipLost(name) from None
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
            raise
        finally:
            self._running.pop(task, None)
            self._lost.discard(task)

    async def close(self) -> None:
        """Gives all locks back."""
        if self._pinger is not None:
            await cancel([self._pinger])
            self._pinger = None
        async with self._turn:
            connection, self._connection = self._connection, None
            self._drop()
            if connection is not None and not connection.is_closed():
                connection.remove_termination_listener(self._terminated)
                with contextlib.suppress(Exception):
                    await connection.close(timeout=2)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_S)
            try:
                async with self._turn:
                    if self._connection is not None and not self._connection.is_closed():
                        await self._connection.execute("SELECT 1", timeout=PING_S)
            except Exception as error:
                _log.warning("leader connection lost", cause=f"{type(error).__name__}: {error}")
                self._terminated(self._connection)

    def _terminated(self, connection: Any) -> None:
        if connection is not None and connection is self._connection:
            self._connection = None
            with contextlib.suppress(Exception):
                connection.terminate()
            self._drop()

    def _drop(self) -> None:
        for name in self._held:
            _log.warning("leads no more", lock=name)
        self._held.clear()
        for task in self._running:
            self._lost.add(task)
            task.cancel()
