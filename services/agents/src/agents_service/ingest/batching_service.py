"""A micro-batcher: what many requests hand in within a moment is written together, and each waits for that write."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from agents_service.errors import INGEST_BUSY

Item = TypeVar("Item")
Result = TypeVar("Result")

Write = Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]]
"""Writes items durably; the answer has one entry per item: its result, or the error of that item alone."""


class _Waiting(Generic[Item, Result]):
    __slots__ = ("future", "item", "weight")

    def __init__(self, item: Item, weight: int, future: asyncio.Future[Result]) -> None:
        self.item = item
        self.weight = weight
        self.future = future


class MicroBatcher(Generic[Item, Result]):
    """Collects items for at most `linger_s`, or until `max_weight` is reached, and writes them in one go.

    At most `writers` batches are being written at once; while all are busy the next batch grows by itself. An item that
    is handed in is written even when its caller goes away. `max_pending`: weight that may wait before `submit` answers
    503.
    """

    def __init__(
        self,
        write: Write[Item, Result],
        *,
        max_weight: int,
        linger_s: float,
        writers: int = 2,
        max_pending: int,
    ) -> None:
        self._write = write
        self._max_weight = max_weight
        self._linger_s = linger_s
        self._writers = writers
        self._max_pending = max_pending
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._pending = 0
        self._busy = 0
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, item: Item, weight: int) -> Result:
        """Wait until the item is durable and return its result; raises its own error, never a neighbour's."""
        if self._pending + weight > self._max_pending and self._queue:
            raise INGEST_BUSY()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._queue.append(_Waiting(item, weight, future))
        self._pending += weight
        if self._pending >= self._max_weight:
            self._start(loop)
        elif self._timer is None and self._busy < self._writers:
            self._timer = loop.call_later(self._linger_s, self._start, loop)
        return await future

    async def close(self) -> None:
        """Writes what is left and returns when it is durable."""
        loop = asyncio.get_running_loop()
        while self._queue or self._tasks:
            self._start(loop)
            if self._tasks:
                await asyncio.wait(self._tasks)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue and self._busy < self._writers:
            batch: list[_Waiting[Item, Result]] = []
            weight = 0
            while self._queue and (not batch or weight + self._queue[0].weight <= self._max_weight):
                entry = self._queue.popleft()
                weight += entry.weight
                batch.append(entry)
            self._pending -= weight
            self._busy += 1
            # A batch belongs to no request: it carries neither the principal nor the ids of the one that started it.
            task = loop.create_task(self._run(batch), context=contextvars.Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, batch: list[_Waiting[Item, Result]]) -> None:
        try:
            results = await self._write([entry.item for entry in batch])
        except Exception as error:
            results = [error] * len(batch)
        finally:
            self._busy -= 1
        for entry, result in zip(batch, results, strict=True):
            if entry.future.done():
                continue
            if isinstance(result, Exception):
                entry.future.set_exception(result)
            else:
                entry.future.set_result(result)
        if self._queue:
            self._start(asyncio.get_running_loop())
