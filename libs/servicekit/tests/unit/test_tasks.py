"""Ending tasks, also those that lose a cancellation."""

from __future__ import annotations

import asyncio

import pytest

from servicekit import tasks


async def test_a_task_that_drops_a_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AGAIN_S", 0.01)
    dropped = 0

    async def stubborn() -> None:
        nonlocal dropped
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                dropped += 1
                if dropped == 3:
                    raise

    async def willing() -> None:
        await asyncio.Event().wait()

    async def failing() -> None:
        raise RuntimeError("nobody is told of this")

    running = [asyncio.create_task(work()) for work in (stubborn, willing, failing)]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await tasks.cancel(running)
    assert dropped == 3
    assert [task.cancelled() for task in running] == [True, True, False]


async def test_nothing_to_end_ends_at_once() -> None:
    await tasks.cancel([])
