"""The git command line, the one place that runs it.

Every call gets a closed environment: no system or user configuration, no hooks, no fsmonitor, no ssh command, no
prompts, no submodules, and only the transports that the rules allow.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from servicekit import context
from vcs_service.errors import GIT_FAILED, GIT_TIMEOUT, HOST_REFUSED, HOST_UNKNOWN
from vcs_service.mirror import locks_adapters as locks
from vcs_service.mirror import rules
from vcs_service.mirror.rules import Source

DEFAULT_TIMEOUT_S = 30.0
FETCH_TIMEOUT_S = 900.0
MAX_OUTPUT = 32 * 1024 * 1024
READ_SIZE = 64 * 1024
END_S = 2.0

_log = structlog.get_logger(__name__)

_CLOSED = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.sshCommand=/bin/false",
    "core.askPass=/bin/false",
    "credential.helper=",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "protocol.allow=never",
    "protocol.https.allow=always",
    "protocol.http.allow=always",
    "protocol.file.allow=always",
    "http.followRedirects=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "receive.fsckObjects=true",
    "uploadpack.hideRefs=refs/upstream",
    "receive.hideRefs=refs/upstream",
    "receive.denyDeletes=true",
    "receive.denyNonFastForwards=true",
    "receive.autogc=false",
    "receive.maxInputSize=536870912",
)


@dataclass(frozen=True, slots=True)
class GitResult:
    """What a git command left: exit code, standard output and the end of its complaints."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """The output as text, without the last newline."""
        return self.out.decode("utf-8", "replace").rstrip("\n")


class Git:
    """Runs git in bare repositories below `root`, at most `parallel` processes at once."""

    def __init__(self, root: Path, *, parallel: int = 8) -> None:
        self.root = root
        self._slots = asyncio.Semaphore(parallel)

    def path(self, project_id: str) -> Path:
        """The bare repository of a project."""
        return self.root / f"{project_id}.git"

    async def run(
        self,
        *arguments: str,
        repository: Path | None = None,
        stdin: bytes | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        ok: Sequence[int] = (0,),
        config: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        cut: bool = False,
    ) -> GitResult:
        """The result of one git command; arguments are never put through a shell.

        No more than 32 MiB of output are read: with `cut` they are the result, and an error without.
        Raises `vcs.git_failed` for an exit code that is not in `ok`, `vcs.git_timeout` after `timeout_s` seconds and
        where another git holds a lock.
        """
        context.assert_no_transaction("git")
        result = await self._run(arguments, repository, stdin, timeout_s, config, environment, cut=cut)
        if (
            result.code
            and repository is not None
            and await asyncio.to_thread(locks.clear_stale, repository, result.err)
        ):
            result = await self._run(arguments, repository, stdin, timeout_s, config, environment, cut=cut)
        if result.code and locks.names_a_lock(result.err):
            raise GIT_TIMEOUT(f"git {arguments[0]} found the repository locked.")
        if result.code not in ok:
            _log.info("git_failed", command=arguments[0], code=result.code, error=result.err[-500:])
            raise GIT_FAILED(f"git {arguments[0]} failed: {result.err[-300:] or f'exit code {result.code}'}")
        return result

    async def _run(
        self,
        arguments: Sequence[str],
        repository: Path | None,
        stdin: bytes | None,
        timeout_s: float,
        config: Sequence[str],
        environment: Mapping[str, str] | None,
        *,
        cut: bool,
    ) -> GitResult:
        async with self._slots:
            process = await self._spawn(arguments, repository, config, environment, pipe_in=stdin is not None)
            try:
                async with asyncio.timeout(timeout_s):
                    out, err, whole = await _communicate(process, stdin)
            except TimeoutError as error:
                raise GIT_TIMEOUT(f"git {arguments[0]} took longer than {timeout_s:.0f} s.") from error
            finally:
                await end(process)
        if not whole and not cut:
            raise GIT_FAILED(f"git {arguments[0]} printed more than {MAX_OUTPUT} bytes.")
        code = (process.returncode or 0) if whole else 0
        return GitResult(code, out, err[-4000:].decode("utf-8", "replace").strip())

    @contextlib.asynccontextmanager
    async def serve(
        self, command: str, *arguments: str, repository: Path, protocol: str | None
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """A running `upload-pack` or `receive-pack` with its pipes; ended with its group when the block ends."""
        environment = {"GIT_PROTOCOL": protocol} if protocol else {}
        async with self._slots:
            process = await self._spawn((command, *arguments, str(repository)), None, (), environment, pipe_in=True)
            try:
                yield process
            finally:
                await end(process)

    async def pin(self, source: Source, *, public_only: bool) -> list[str]:
        """Configuration that ties the host to addresses that were checked, so that a second look-up cannot differ.

        Raises `vcs.host_unknown` when the host cannot be looked up, `vcs.host_refused` when one of its addresses is not
        public.
        """
        if source.is_path or not public_only:
            return []
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(source.host, source.port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            # A name server that is away says the same as one that knows no such host: it is asked again.
            raise HOST_UNKNOWN(f"{source.host} is not known.") from error
        addresses = sorted({str(entry[4][0]) for entry in found})
        if not addresses or not all(rules.address_is_public(address) for address in addresses):
            raise HOST_REFUSED(f"{source.host} is not a public address.")
        return [f"http.curloptResolve={source.host}:{source.port}:{','.join(addresses)}"]

    async def _spawn(
        self,
        arguments: Sequence[str],
        repository: Path | None,
        config: Sequence[str],
        environment: Mapping[str, str] | None,
        *,
        pipe_in: bool,
    ) -> asyncio.subprocess.Process:
        command = ["git"]
        if repository is not None:
            command.append(f"--git-dir={repository}")
        for entry in (*_CLOSED, "safe.directory=*", *config):
            command += ["-c", entry]
        return await asyncio.create_subprocess_exec(
            *command,
            *arguments,
            stdin=asyncio.subprocess.PIPE if pipe_in else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=closed_environment() | dict(environment or {}),
            start_new_session=True,
            limit=1 << 20,
        )


async def _communicate(process: asyncio.subprocess.Process, stdin: bytes | None) -> tuple[bytes, bytes, bool]:
    """(output, complaints, whether that is all of the output); a process that prints too much is ended."""
    assert process.stdout is not None
    assert process.stderr is not None
    feeding = asyncio.create_task(_write(process, stdin or b""))
    complaints = asyncio.create_task(process.stderr.read())
    out = bytearray()
    try:
        while part := await process.stdout.read(READ_SIZE):
            out += part
            if len(out) > MAX_OUTPUT:
                await end(process)
                return bytes(out[:MAX_OUTPUT]), await complaints, False
        await feeding
        err = await complaints
        await process.wait()
        return bytes(out), err, True
    finally:
        for task in (feeding, complaints):
            task.cancel()
        await asyncio.gather(feeding, complaints, return_exceptions=True)


async def _write(process: asyncio.subprocess.Process, data: bytes) -> None:
    if process.stdin is None:
        return
    # A process that ends without reading all of it says why on its standard error.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(data)
        await process.stdin.drain()
    process.stdin.close()


def closed_environment() -> dict[str, str]:
    """The whole environment of a git process."""
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "LC_ALL": "C.UTF-8",
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_AUTHOR_NAME": "OmoiOS",
        "GIT_AUTHOR_EMAIL": "merge@omoios.invalid",
        "GIT_COMMITTER_NAME": "OmoiOS",
        "GIT_COMMITTER_EMAIL": "merge@omoios.invalid",
    }


async def end(process: asyncio.subprocess.Process) -> None:
    """Ends what is left of a process's group and waits for the process.

    git removes its lock files when it is asked to end, and cannot when it is killed.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S if number == signal.SIGTERM else None):
                await process.wait()
