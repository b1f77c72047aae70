"""The host: one service as a process, started and ended as a supervisor does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from fastapi import APIRouter

from omoios_local.embedded.process import free_port
from servicekit.auth.access import PUBLIC, AccessTable
from servicekit.db import Database
from servicekit.host import Job, Service, running
from servicekit.settings import ServiceSettings

PROCESS = Path(__file__).parent / "process.py"


class Child:
    """The process and its log lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(orjson.loads(line))

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines]

    async def until(self, event: str, timeout_s: float = 20.0) -> dict[str, Any]:
        async with asyncio.timeout(timeout_s):
            while event not in self.events():
                assert self.process.returncode is None, self.lines
                await asyncio.sleep(0.02)
        return next(line for line in self.lines if line["event"] == event)

    async def ended(self, timeout_s: float = 20.0) -> int:
        code = await asyncio.wait_for(self.process.wait(), timeout_s)
        await self.reading
        return code


@pytest.fixture
async def spawn() -> AsyncIterator[Callable[..., Any]]:
    children: list[Child] = []

    async def start(**environment: str) -> Child:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(PROCESS),
            stdout=asyncio.subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if not name.startswith("OMOIOS_")}
            | {"OMOIOS_ENV": "test"}
            | environment,
        )
        children.append(Child(process))
        return children[-1]

    yield start
    for child in children:
        if child.process.returncode is None:
            child.process.kill()
            await child.ended()


async def test_sigterm_lets_the_running_request_finish(spawn: Any) -> None:
    port = free_port()
    child = await spawn(OMOIOS_HTTP_PORT=str(port), OMOIOS_SHUTDOWN_DELAY_S="0.6", OMOIOS_EMBED_WORKER="true")
    started = await child.until("started")
    assert (started["role"], started["http_port"]) == ("server", port)
    await child.until("tick")
    base = f"http://127.0.0.1:{port}"
    async with httpx2.AsyncClient(base_url=base, trust_env=False) as http:
        assert (await http.get("/readyz")).json() == {"status": "ok"}
        assert (await http.get("/health")).json() == {"status": "healthy", "service": "process"}
        slow = asyncio.create_task(http.get("/api/v1/process/slow?s=1.5"))
        await child.until("entered")
        child.process.send_signal(signal.SIGTERM)
        await child.until("stopping")
        unready = await http.get("/readyz")
        assert (unready.status_code, unready.json()["failed"]) == (503, ["serving"])
        assert (await http.get("/livez")).status_code == 200
        assert (await slow).json() == "done"
    assert await child.ended() == 0
    events = child.events()
    assert events[0] == "lifespan entered"
    assert events.index("request") < events.index("lifespan left") < events.index("stopped")


async def test_a_second_signal_ends_it_at_once(spawn: Any) -> None:
    port = free_port()
    child = await spawn(OMOIOS_HTTP_PORT=str(port))
    await child.until("started")
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
        slow = asyncio.create_task(http.get("/api/v1/process/slow?s=30"))
        await child.until("entered")
        child.process.send_signal(signal.SIGTERM)
        await child.until("stopping")
        child.process.send_signal(signal.SIGTERM)
        assert await child.ended(5.0) == 1
        with contextlib.suppress(httpx2.TransportError):
            await slow


async def test_a_worker_serves_probes_and_runs_jobs(spawn: Any) -> None:
    child = await spawn(ROLE="worker")
    started = await child.until("started")
    await child.until("tick")
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{started['http_port']}", trust_env=False) as http:
        assert (await http.get("/readyz")).status_code == 200
        metrics = await http.get("/metrics")
        assert (await http.get("/api/v1/process/slow?s=0")).status_code == 404
    assert 'job_runs_total{job="tick",outcome="ok"}' in metrics.text
    assert "process_cpu_seconds_total" in metrics.text
    child.process.send_signal(signal.SIGINT)
    assert await child.ended() == 0


async def test_a_taken_port_ends_the_start(spawn: Any) -> None:
    port = free_port()
    first = await spawn(OMOIOS_HTTP_PORT=str(port))
    await first.until("started")
    second = await spawn(OMOIOS_HTTP_PORT=str(port))
    assert await second.ended() == 1
    first.process.send_signal(signal.SIGTERM)
    assert await first.ended() == 0


class Part:
    def __init__(self, name: str, log: list[str], fails: bool = False) -> None:
        self.name, self.log, self.fails = name, log, fails

    async def start(self) -> None:
        self.log.append(f"{self.name} start")
        if self.fails:
            raise RuntimeError(f"{self.name} does not start")

    async def close(self) -> None:
        self.log.append(f"{self.name} close")


async def test_parts_start_in_order_and_close_in_reverse() -> None:
    log: list[str] = []
    ran: list[str] = []

    async def work() -> None:
        ran.append("job")

    service = Service(
        name="parts",
        settings=ServiceSettings(env="test"),
        access=AccessTable(),
        channels=Part("channels", log),
        bus=Part("bus", log),
        resources=Part("resources", log),
        jobs=[Job("work", every_s=60, run=work, jitter=0)],
    )
    async with running(service) as found:
        assert (await found.http.get("/readyz")).status_code == 200
        assert (found.http_port, found.rpc_port, found.worker) == (0, 0, None)
    assert log == ["channels start", "bus start", "resources start", "resources close", "bus close", "channels close"]
    assert ran == []

    log.clear()
    service.bus = Part("bus", log, fails=True)
    with pytest.raises(RuntimeError, match="bus does not start"):
        async with running(service):
            raise AssertionError("not reached")
    assert log == ["channels start", "bus start", "bus close", "channels close"]


async def test_readiness_follows_the_database(db: Database) -> None:
    router = APIRouter(prefix="/api/v1/x", tags=["x"])

    @router.get("")
    async def get() -> str:
        return "x"

    service = Service(
        name="ready",
        settings=ServiceSettings(env="test"),
        access=AccessTable(operations={"x.get": PUBLIC}),
        db=db,
        routers=[router],
        authenticator=Silent(),
    )
    async with running(service, listen=True, worker=False) as found:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{found.http_port}", trust_env=False) as http:
            assert (await http.get("/readyz")).json() == {"status": "ok"}
            assert (await http.get("/api/v1/x")).json() == "x"
        found.readiness.checks["consumers"] = lambda: False
        unready = await found.http.get("/readyz")
        assert (unready.status_code, unready.json()["failed"]) == (503, ["consumers"])


class Silent(Part):
    def __init__(self) -> None:
        super().__init__("authenticator", [])

    async def authenticate(self, scope: Any) -> None:
        del scope

    async def refresh(self, principal: Any) -> None:
        del principal

    def on_revoked(self, callback: Any) -> None:
        del callback
