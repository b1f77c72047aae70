"""Waiting for a hint: what a long poll sleeps on between two looks at the truth."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque

from servicekit.http.admission import waiting


class Wakeups:
    """Waiters by key, in the memory of one process. A lost hint costs one poll interval, nothing else."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, deque[asyncio.Future[None]]] = defaultdict(deque)
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the process is going; who waits should answer now."""
        return self._closed

    def notify(self, key: str, count: int | None = None) -> None:
        """Wake the waiters of `key` that wait longest; `count` None wakes all."""
        waiters = self._waiting.get(key)
        woken = 0
        while waiters and (count is None or woken < count):
            future = waiters.popleft()
            if not future.done():
                future.set_result(None)
                woken += 1

    async def wait(self, key: str, timeout_s: float) -> bool:
        """Sleep until a hint for `key`, at most `timeout_s`; tells whether one came."""
        if self._closed or timeout_s <= 0:
            return False
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiting[key]
        waiters.append(future)
        try:
            # Runners that wait for work keep nobody out who has some.
            with waiting():
                async with asyncio.timeout(timeout_s):
                    await future
            return True
        except TimeoutError:
            return False
        finally:
            if future in waiters:
                waiters.remove(future)
            if not waiters:
                self._waiting.pop(key, None)

    def close(self) -> None:
        """Wake everyone for good."""
        self._closed = True
        for key in list(self._waiting):
            self.notify(key)
