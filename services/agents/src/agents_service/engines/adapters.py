"""Starting commands in a sandbox and reading what they say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from agents_service.engines.rules import FILE_BYTES, OPEN_FILES, PROCESSES, Confinement, bubblewrap

READ_BYTES = 64 * 1024
KILL_AFTER_S = 5.0
INIT = Path(__file__).with_name("init_adapters.py")

Line = Callable[[str, bytes], Awaitable[None]]
"""`await line("stdout" | "stderr", bytes)`: one line of output; the command waits while this does."""


class Process:
    """One running command."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Of the sandbox's first process."""
        return self._process.pid

    async def stop(self) -> None:
        """End the command and everything that it started."""
        if self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(KILL_AFTER_S):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def output(self, line: Line) -> int:
        """Hand on every line until the command and its children have closed their output; returns the exit code."""
        async with asyncio.TaskGroup() as readers:
            for name, reader in (("stdout", self._process.stdout), ("stderr", self._process.stderr)):
                if reader is not None:
                    readers.create_task(_lines(name, reader, line))
        code = await self._process.wait()
        return -(code - 128) if 128 < code <= 192 else code


async def start(
    argv: Sequence[str], environment: Mapping[str, str], confinement: Confinement, *, stdout: int | None = None
) -> Process:
    """Start a command in its confinement, in a process group of its own, with nothing of the runner's environment.

    `stdout`: a file that takes its output, as bytes; otherwise it is read line by line.
    """
    command = list(argv)
    if confinement.bubblewrap:
        command = bubblewrap(
            command,
            workdir=confinement.workdir,
            home=confinement.home,
            hidden=confinement.hidden,
            hidden_files=confinement.hidden_files,
            shown=confinement.shown,
            network=confinement.network,
        )
    limits = {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": OPEN_FILES, "RLIMIT_FSIZE": FILE_BYTES}
    if confinement.uid is not None:
        # The limit counts all processes of a user, so that it would hit the runner's own user.
        limits["RLIMIT_NPROC"] = PROCESSES
    order = {
        "argv": command,
        "cwd": confinement.workdir,
        "env": dict(environment),
        "uid": confinement.uid,
        "gid": confinement.gid,
        "limits": limits,
        "parent": os.getpid(),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-S",
        str(INIT),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE if stdout is None else stdout,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.defpath},
        limit=READ_BYTES,
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(order).encode())
    with contextlib.suppress(ConnectionError):
        await process.stdin.drain()
    process.stdin.close()
    return Process(process)


async def _lines(name: str, reader: asyncio.StreamReader, line: Line) -> None:
    rest = b""
    while True:
        chunk = await reader.read(READ_BYTES)
        if not chunk:
            break
        *whole, rest = (rest + chunk).split(b"\n")
        for text in whole:
            await line(name, text.removesuffix(b"\r"))
        if len(rest) > READ_BYTES:
            await line(name, rest)
            rest = b""
    if rest:
        await line(name, rest)


async def why_no_bubblewrap(uid: int | None, *, network: bool) -> str | None:
    """Why commands of this user id (None: the runner's own) cannot be wrapped; None when they can."""
    if shutil.which("bwrap") is None:
        return "bubblewrap (bwrap) is not installed"
    process = await asyncio.create_subprocess_exec(
        *bubblewrap(["true"], workdir="/", home="/", hidden=(), network=network),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
    )
    _, said = await process.communicate()
    return None if process.returncode == 0 else said.decode("utf-8", "replace").strip() or "bwrap failed"


def write_prompt(name: str, text: str, uid: int | None, gid: int | None) -> None:
    """A file that the command may read and nobody else."""
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    if uid is not None and gid is not None:
        os.chown(path, uid, gid)
