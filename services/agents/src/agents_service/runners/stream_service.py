"""The events of one sandbox on their way to the API: ordered, bounded, repeated until acknowledged."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import msgspec

from agents_service.runners import rules
from agents_service.runners.adapters import Over, Refused, SandboxApi
from agents_service.runners.rules import StreamFull
from servicekit.ids import new_id

_encode = msgspec.json.Encoder().encode


class EventStream:
    """`put` an event; a sender posts batches of up to 100 events or 200 ms, one at a time.

    An event keeps its id for all tries, so that a batch whose answer was lost is recorded once. While too much is
    unsent `put` waits, and with it the command whose output it is. When the attempt is over everything is dropped.
    """

    def __init__(self, api: SandboxApi, limit: StreamFull | None = None) -> None:
        self._api = api
        self._limit = limit or StreamFull()
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._sending = 0
        self._arrived = asyncio.Event()
        self._moved = asyncio.Condition()
        self._hurry = asyncio.Event()
        self.over: str | None = None
        self.sent = 0

    async def put(self, event_type: str, data: dict[str, Any]) -> None:
        """Add an event behind the others; waits while the buffer is full."""
        if self.over is not None:
            return
        item = _encode({"event_id": new_id(), "event_type": event_type, "event_data": data, "source": "worker"})
        if self._full():
            async with self._moved:
                await self._moved.wait_for(lambda: self.over is not None or not self._full())
        if self.over is not None:
            return
        self._queue.append(item)
        self._size += len(item)
        self._arrived.set()
        if len(self._queue) >= rules.BATCH_LINES:
            self._hurry.set()

    async def flush(self) -> None:
        """Return when everything put so far is acknowledged, or the attempt is over."""
        self._hurry.set()
        async with self._moved:
            await self._moved.wait_for(lambda: self.over is not None or (not self._queue and not self._sending))

    async def run(self) -> None:
        """Send until cancelled. Raises Over or Refused when nothing will be taken any more; the rest is dropped."""
        while self.over is None:
            await self._arrived.wait()
            if len(self._queue) < rules.BATCH_LINES and not self._hurry.is_set():
                try:
                    async with asyncio.timeout(rules.BATCH_WAIT_S):
                        await self._hurry.wait()
                except TimeoutError:
                    pass
            self._hurry.clear()
            batch = self._take()
            try:
                await self._api.post("/events/batch", None, raw=b'{"events":[' + b",".join(batch) + b"]}")
            except (Over, Refused) as error:
                self.over = str(error)
                await self._advance()
                raise
            self.sent += len(batch)
            await self._advance()

    def _take(self) -> list[bytes]:
        batch: list[bytes] = []
        size = 0
        while self._queue and len(batch) < rules.BATCH_LINES and (not batch or size < rules.BATCH_BYTES):
            item = self._queue.popleft()
            size += len(item)
            batch.append(item)
        self._size -= size
        self._sending = len(batch)
        return batch

    async def _advance(self) -> None:
        async with self._moved:
            self._sending = 0
            if self.over is not None:
                self._queue.clear()
                self._size = 0
            if not self._queue:
                self._arrived.clear()
            elif len(self._queue) >= rules.BATCH_LINES:
                self._hurry.set()
            self._moved.notify_all()

    def _full(self) -> bool:
        return len(self._queue) >= self._limit.events or self._size >= self._limit.size
