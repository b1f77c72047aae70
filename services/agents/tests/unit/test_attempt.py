"""What becomes of an attempt when a part of the runner fails."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from agents_service.runners.adapters import Api
from agents_service.runners.attempt_service import AttemptWork
from agents_service.runners.settings_adapters import RunnerSettings


async def test_an_attempt_ends_when_nobody_sends_its_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = RunnerSettings(url="http://127.0.0.1:1", token=SecretStr("t"), workdir=tmp_path, bubblewrap="off")
    api = Api(settings)
    claim: dict[str, Any] = {
        "task": {"id": "task-1", "title": "T"},
        "attempt": 1,
        "sandbox": {"id": "sandbox-1", "token": "t"},
        "heartbeat_interval_s": 60,
    }
    attempt = AttemptWork(api, settings, claim, 0, wrapped=False)
    ended: list[str] = []

    async def broken() -> None:
        await asyncio.sleep(0.05)
        raise RuntimeError("the sender broke")

    async def waiting() -> None:
        try:
            await attempt.stream.flush()
            await asyncio.Event().wait()
        finally:
            ended.append("work")

    monkeypatch.setattr(attempt.stream, "run", broken)
    monkeypatch.setattr(attempt, "_listen", asyncio.Event().wait)
    monkeypatch.setattr(attempt, "_work", waiting)
    async with asyncio.timeout(10):
        with pytest.raises(RuntimeError, match="the sender broke"):
            await attempt.run()
    await api.close()
    assert ended == ["work"]
    assert not await asyncio.to_thread(os.listdir, tmp_path)
