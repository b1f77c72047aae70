"""What tests of the runner stand on: the running service behind a door that can be shut, and a real git server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from git_server import GitServer
from peers import QueuedTask

from agents_service.main import build

ORGANIZATION = "org-1"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user may pass through, as sandboxes need it."""
    folder = Path(tempfile.mkdtemp(prefix="omoios-agents-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def git_server(open_folder: Path) -> Iterator[GitServer]:
    folder = open_folder / "git"
    folder.mkdir()
    server = GitServer(folder)
    yield server
    server.close()


class Door:
    """A TCP relay before the API that can be shut, so that the API seems to be away."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.shut = False
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def close_door(self) -> None:
        self.shut = True
        for writer in self._open:
            writer.transport.abort()

    async def stop(self) -> None:
        self.close_door()
        assert self._server is not None
        self._server.close()
        await asyncio.sleep(0.05)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.shut:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._open |= {writer, far_writer}

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        self._open -= {writer, far_writer}


class Runners:
    """Starts runner processes and ends them."""

    def __init__(self, url: str, token: str, folder: Path) -> None:
        self.url = url
        self.token = token
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []
        self.logs: list[Path] = []

    def start(self, **settings: str) -> subprocess.Popen[bytes]:
        log = self.folder / f"runner-{len(self.started)}.log"
        token = self.folder / "token"
        token.write_text(self.token)
        token.chmod(0o600)
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": os.environ.get("HOME", "/"),
            "A_SECRET_OF_THE_RUNNER": "do-not-tell",
            "OMOIOS_RUNNER_URL": self.url,
            "OMOIOS_RUNNER_TOKEN_FILE": str(token),
            "OMOIOS_RUNNER_WORKDIR": str(self.folder / "work"),
            "OMOIOS_RUNNER_WAIT_S": "2",
        } | {f"OMOIOS_RUNNER_{name.upper()}": value for name, value in settings.items()}
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "agents_service.runners.main"], env=environment, stdout=file, stderr=file
            )
        self.started.append(process)
        self.logs.append(log)
        return process

    def said(self) -> str:
        return "\n".join(log.read_text() for log in self.logs)

    async def stop(self, process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
        if process.poll() is None:
            process.send_signal(number)
        return await asyncio.to_thread(process.wait, 20)


@pytest.fixture
async def working(
    world_parts: Any, service_host: Any, signing: Any, git_server: GitServer, open_folder: Path
) -> AsyncIterator[Any]:
    workflow, vcs, _, target = world_parts
    running = await service_host(
        build,
        "agents",
        rpc_targets={"workflow": target, "vcs": target, "identity": target},
        listen=True,
        claim_poll_s=0.2,
        sandbox_heartbeat_interval_s=0.4,
        heartbeat_interval_s=1,
    )
    vcs.clone_url, vcs.base_sha = git_server.clone_url, git_server.base_sha
    owner = await signing.user("user-1", ORGANIZATION, "owner")
    door = Door(running.http_port)
    await door.start()
    runners = Runners(f"http://127.0.0.1:{door.port}", owner, open_folder)

    class Working:
        pass

    found = Working()
    found.__dict__.update(
        running=running, workflow=workflow, vcs=vcs, git=git_server, runners=runners, owner=owner, door=door
    )

    async def until(condition: Callable[[], Any], limit_s: float = 20.0) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, runners.said()
            await asyncio.sleep(0.05)

    async def until_true(condition: Callable[[], Awaitable[Any]], limit_s: float = 30.0) -> None:
        deadline = time.monotonic() + limit_s
        while not await condition():
            assert time.monotonic() < deadline, runners.said()
            await asyncio.sleep(0.05)

    async def events(sandbox_id: str, event_type: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            answer = await running.http.get(
                f"/api/v1/sandboxes/{sandbox_id}/events?event_type={event_type}&limit=500&offset={len(found)}",
                headers={"Authorization": f"Bearer {owner}"},
            )
            page = answer.json()["events"]
            found += page
            if len(page) < 500:
                return found[::-1]

    def add(task_id: str, *commands: str, attempts: int = 1, **config: Any) -> QueuedTask:
        for attempt in range(1, attempts + 1):
            git_server.branch(f"omoios/{task_id}-{attempt}")
        return workflow.add(
            QueuedTask(task_id, ORGANIZATION, config={"engine": "command", "commands": list(commands), **config})
        )

    found.until, found.until_true, found.events, found.add = until, until_true, events, add  # type: ignore[attr-defined]
    yield found
    for process in runners.started:
        await runners.stop(process)
    await door.stop()
