"""Ending asyncio tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_S = 0.5


async def cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and return when all have ended, however they do.

    A task is cancelled again where it goes on: `asyncio.wait_for` of Python before 3.12 drops a cancellation that comes
    together with the answer, and the clients of NATS and Redis wait by it.
    """
    ended = list(tasks)
    while left := [task for task in ended if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=AGAIN_S)
    # An exception that nobody looks at would be told as an error when the task is forgotten.
    await asyncio.gather(*ended, return_exceptions=True)
