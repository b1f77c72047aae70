"""What becomes of an attempt when a part of the runner fails."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from agents_service.runners.adapters import Api, Refused
from agents_service.runners.attempt_service import AttemptWork
from agents_service.runners.settings_adapters import RunnerSettings

CLAIM: dict[str, Any] = {
    "task": {"id": "task-1", "title": "T"},
    "attempt": 1,
    "sandbox": {"id": "sandbox-1", "token": "t"},
    "heartbeat_interval_s": 60,
}


class Attempt:
    """An attempt of which the API hears nothing, and what it would have been told."""

    def __init__(self, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[tuple[str, Any]] = []
        settings = RunnerSettings(url="http://127.0.0.1:1", token=SecretStr("t"), workdir=workdir, bubblewrap="off")
        self.api = Api(settings)
        self.work = AttemptWork(self.api, settings, CLAIM, 0, wrapped=False)
        monkeypatch.setattr(self.work.api, "post", self._post)
        monkeypatch.setattr(self.work.api, "post_once", self._post)
        monkeypatch.setattr(self.work, "_listen", asyncio.Event().wait)

    async def _post(self, path: str, body: Any, *, raw: bytes | None = None) -> dict[str, Any]:
        if path == "/events/batch":
            raise Refused("413: The data of an event is too large.")
        self.told.append((path, body))
        return {}

    async def run(self) -> None:
        async with asyncio.timeout(10):
            await self.work.run()
        await self.api.close()


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attempt:
    monkeypatch.setattr("agents_service.runners.rules.BACKOFF_MAX_S", 0.01)
    return Attempt(tmp_path, monkeypatch)


async def test_an_attempt_whose_sender_breaks_ends_and_says_so(
    attempt: Attempt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []

    async def broken() -> None:
        await asyncio.sleep(0.05)
        raise RuntimeError("the sender broke")

    async def waiting() -> None:
        try:
            await attempt.work.stream.flush()
            await asyncio.Event().wait()
        finally:
            ended.append("work")

    monkeypatch.setattr(attempt.work.stream, "run", broken)
    monkeypatch.setattr(attempt.work, "_work", waiting)
    await attempt.run()
    assert ended == ["work"]
    ((path, body),) = attempt.told
    assert (path, body["success"]) == ("/task-complete", False)
    assert body["error_message"] == "The runner failed: RuntimeError: the sender broke"
    assert not await asyncio.to_thread(os.listdir, tmp_path)


async def test_events_that_are_refused_fail_the_attempt_at_once(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def working() -> None:
        await attempt.work.stream.put("agent.output", {"line": "x"})
        await asyncio.Event().wait()

    monkeypatch.setattr(attempt.work, "_work", working)
    await attempt.run()
    ((path, body),) = attempt.told
    assert (path, body["success"]) == ("/task-complete", False)
    assert "413: The data of an event is too large." in body["error_message"]


async def test_an_error_of_the_machine_fails_the_attempt_with_its_reason(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def working() -> None:
        raise OSError(24, "Too many open files", "x" * 5_000)

    monkeypatch.setattr(attempt.work, "_work", working)
    await attempt.run()
    ((path, body),) = attempt.told
    assert path == "/task-complete"
    assert body["error_message"].startswith("The runner failed: OSError: [Errno 24] Too many open files")
    assert len(body["error_message"]) <= 2_000


async def test_a_runner_without_room_gives_the_task_back(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(attempt.work.folders, "make", full)
    await attempt.run()
    ((path, body),) = attempt.told
    assert path == "/release"
    assert "No space left on device" in body["reason"]


async def test_an_attempt_that_is_over_says_nothing_more(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    async def working() -> None:
        attempt.work.over = "superseded"
        raise OSError("too late")

    monkeypatch.setattr(attempt.work, "_work", working)
    await attempt.run()
    assert attempt.told == []
