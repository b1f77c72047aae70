"""The runner as a process of its own, against the running service and a real git server."""

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
from collections.abc import AsyncIterator, Callable, Iterator
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

    found.until, found.events, found.add = until, events, add  # type: ignore[attr-defined]
    yield found
    for process in runners.started:
        await runners.stop(process)
    await door.stop()


async def test_tasks_are_worked_on_side_by_side_and_pushed(working: Any) -> None:
    working.add("task-a", "echo made > made.txt", "cat made.txt", "env | sort", "ps -ef || true", "id -u")
    working.add("task-b", "seq 1 2500", "echo problem >&2")
    working.add("task-c", "echo first", "exit 3", "echo never")
    working.runners.start(slots="2", labels='["python"]')
    queue = working.workflow.queue
    await working.until(lambda: all(queue[name].status in {"completed", "failed"} for name in queue))

    made = queue["task-a"]
    assert made.status == "completed", working.runners.said()
    assert [command["exit_code"] for command in made.result["commands"]] == [0] * 5
    assert made.result["engine"] == "command"
    assert working.git.show("omoios/task-a-1:made.txt") == "made"
    message = working.git.show("omoios/task-a-1")
    assert "Task: task-a" in message
    assert "Ticket: ticket-1" in message
    assert working.vcs.finished[0][2] or working.vcs.finished[1][2]

    said = "\n".join(event["event_data"]["line"] for event in await working.events(made.sandbox_id, "agent.output"))
    assert "IS_SANDBOX=1" in said
    assert "do-not-tell" not in said
    assert "OMOIOS_RUNNER" not in said
    if os.geteuid() == 0:
        assert int(said.splitlines()[-1]) >= 61_000
    for token in [working.owner, *working.git.passwords]:
        assert token not in said
        assert token not in working.runners.said()
    assert working.git.passwords
    assert working.owner not in working.git.passwords

    numbers = queue["task-b"]
    events = await working.events(numbers.sandbox_id, "agent.output")
    lines = [event["event_data"]["line"] for event in events if event["event_data"]["stream"] == "stdout"]
    assert lines == [str(number) for number in range(1, 2501)]
    assert [event["event_data"]["line"] for event in events if event["event_data"]["stream"] == "stderr"] == ["problem"]
    assert numbers.head_sha == ""

    failed = queue["task-c"]
    assert failed.status == "failed"
    assert failed.error == "Command failed with exit code 3: exit 3"
    assert [command["exit_code"] for command in failed.result["commands"]] == [0, 3]


async def test_output_survives_an_api_that_is_away(working: Any) -> None:
    task = working.add("task-a", "for n in $(seq 1 60); do echo $n; sleep 0.03; done")
    working.runners.start()
    await working.until(lambda: task.status == "running")
    await asyncio.sleep(0.4)
    working.door.close_door()
    await asyncio.sleep(2.0)
    working.door.shut = False
    await working.until(lambda: task.status == "completed")
    lines = [event["event_data"]["line"] for event in await working.events(task.sandbox_id, "agent.output")]
    assert lines == [str(number) for number in range(1, 61)]


def _alive(marker: str) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{name}/cmdline").read_bytes()
                if marker.encode() in command.split(b"\0"):
                    found.append(int(name))
    return found


async def test_a_cancel_kills_the_whole_tree(working: Any) -> None:
    task = working.add("task-a", "(setsid sleep 7341 &) ; sleep 7341 & sleep 7341")
    working.runners.start()
    await working.until(lambda: len(_alive("7341")) == 3)
    task.status = "cancelled"
    await working.until(lambda: not _alive("7341"), 5)
    await working.until(lambda: not list((working.runners.folder / "work").iterdir()), 5)
    assert working.git.log("omoios/task-a-1") == []


async def test_a_killed_runner_takes_its_commands_along_and_its_task_is_done_once(working: Any) -> None:
    task = working.add("task-a", "echo $OMOIOS_SANDBOX_ID > who.txt", "sleep 7342", attempts=9)
    dead = working.runners.start()
    await working.until(lambda: len(_alive("7342")) == 1)
    first = task.sandbox_id
    await working.runners.stop(dead, signal.SIGKILL)
    await working.until(lambda: not _alive("7342"), 5)
    # Its lease runs out: the queue hands the task out again.
    task.config["commands"] = ["echo $OMOIOS_SANDBOX_ID > who.txt"]
    task.status = "pending"
    working.runners.start()
    await working.until(lambda: task.status == "completed")
    # A claim of the dead runner may be under way still: what it gets is given back, and counts as an attempt.
    assert task.attempt >= 2
    assert all(working.git.log(f"omoios/task-a-{attempt}") == [] for attempt in range(1, task.attempt))
    assert working.git.show(f"omoios/task-a-{task.attempt}:who.txt") == task.sandbox_id != first


async def test_sigterm_gives_the_tasks_back(working: Any) -> None:
    task = working.add("task-a", "sleep 7343")
    runner = working.runners.start()
    await working.until(lambda: len(_alive("7343")) == 1)
    assert await working.runners.stop(runner) == 0
    assert task.status == "pending"
    assert not _alive("7343")


async def test_an_interrupt_stops_the_command(working: Any) -> None:
    task = working.add("task-a", "sleep 7344")
    working.runners.start()
    await working.until(lambda: len(_alive("7344")) == 1)
    answer = await working.running.http.post(
        f"/api/v1/sandboxes/{task.sandbox_id}/messages",
        json={"content": "stop", "message_type": "interrupt"},
        headers={"Authorization": f"Bearer {working.owner}"},
    )
    assert answer.status_code == 200, answer.text
    await working.until(lambda: task.status == "failed", 10)
    assert task.error == "Interrupted by a message: sleep 7344"


async def test_a_timeout_and_a_bad_plan_fail_with_their_reason(working: Any) -> None:
    slow = working.add("task-a", "sleep 7345")
    slow.timeout_s = 1
    wrong = working.add("task-b", engine="magic")
    cli = working.add("task-c", engine="cli", template="cp {prompt_file} {workdir}/prompt.md")
    refused = working.add("task-d", "true")
    working.vcs.refuse_finish.add("task-d")
    working.runners.start(slots="4")
    await working.until(lambda: all(task.status in {"failed", "completed"} for task in (slow, wrong, cli, refused)))
    assert slow.error == "Timed out after 1 s: sleep 7345"
    assert refused.error == "The result was refused: 409: The branch does not stand at this commit."
    assert wrong.error == "This runner has no engine named 'magic'."
    assert cli.status == "completed", cli.error
    assert "# Title of task-c" in working.git.show("omoios/task-c-1:prompt.md")


async def test_a_hostile_repository_gains_nothing(working: Any) -> None:
    trap = working.runners.folder / "trapped"
    trap_text = f"touch {trap}-$(id -u)"
    task = working.add(
        "task-a",
        "git config filter.x.clean 'sh -c \"" + trap_text + "; cat\"'; echo '* filter=x' > .gitattributes",
        f"printf '#!/bin/sh\\n{trap_text}\\n' > .git/hooks/pre-push; chmod +x .git/hooks/pre-push",
        "git config url.http://127.0.0.1:1/.insteadOf http://; git config core.sshCommand 'touch nothing'",
        "git config credential.helper '!cat > /dev/null'; echo new > new.txt",
    )
    working.runners.start()
    await working.until(lambda: task.status in {"completed", "failed"})
    assert task.status == "completed", task.error
    assert "new.txt" in working.git.show("omoios/task-a-1")
    assert not [name for name in os.listdir(trap.parent) if name.startswith("trapped-")]
