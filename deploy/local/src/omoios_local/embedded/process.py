"""One operating-system process: how it is described, started, waited for and ended."""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sysconfig
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Command:
    """What to execute: argument vector, whole environment, working directory, and the user to become (root only)."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    uid: int | None = None
    gid: int | None = None
    stop_signal: signal.Signals = signal.SIGTERM

    @property
    def extra_groups(self) -> list[int] | None:
        """Another user keeps none of the caller's supplementary groups."""
        return None if self.uid is None else []


class NotReady(RuntimeError):
    """A part did not become ready in time, or ended while it was waited for. The message holds the end of its log."""


class EmbeddedPart(ABC):
    """One program with a directory of its own and one TCP port on loopback.

    `prepare()` may be called before every start: it writes configuration and ownership and keeps data.
    """

    name: str

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory.absolute()
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def prepare(self) -> None:
        """Make the directory, the configuration and the ownership that the program needs."""

    @abstractmethod
    def command(self) -> Command:
        """The command that runs the program in the foreground."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether the program answers now. Never raises, returns within a second."""

    @property
    def log_file(self) -> Path:
        return self.directory / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self, timeout_s: float = 20.0) -> None:
        """Prepare, start and wait until ready. Raises NotReady with the end of the log."""
        if self._process is not None and self._process.poll() is None:
            return
        self.prepare()
        with self.log_file.open("ab") as log:
            self._process = spawn(self.command(), log)
        atexit.register(self.stop)
        deadline = time.monotonic() + timeout_s
        while not self.ready():
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.stop()
                what = "ended at once" if ended else f"was not ready within {timeout_s:g} s"
                raise NotReady(f"{self.name} on port {self.port} {what}:\n{tail(self.log_file)}")
            time.sleep(0.02)

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the program: its own stop signal first, SIGKILL to its process group after `timeout_s`."""
        process, self._process = self._process, None
        if process is None:
            return
        atexit.unregister(self.stop)
        if process.poll() is None:
            process.send_signal(self.command().stop_signal)
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def kill(self) -> None:
        """SIGKILL to the whole process group, as a crash would be; `start()` brings the program back."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            atexit.unregister(self.stop)
            self._process = None


def spawn(command: Command, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a command in its own session, standard output and error to `log`."""
    return subprocess.Popen(
        command.argv,
        env=dict(command.env),
        cwd=command.cwd,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        user=command.uid,
        group=command.gid,
        extra_groups=command.extra_groups,
    )


def tail(path: Path, lines: int = 15) -> str:
    if not path.exists():
        return "(no log)"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def base_environment() -> dict[str, str]:
    """The few variables that every part may see; nothing else of the caller's environment reaches one."""
    kept = ("PATH", "HOME", "TMPDIR", "TZ", "SSL_CERT_FILE", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}


def program(name: str) -> Path:
    """Path of a program that a wheel put into the scripts folder of this environment."""
    path = Path(sysconfig.get_path("scripts")) / name
    if path.exists():
        return path
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed in this environment; run `make install`")
    return Path(found)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now, from the kernel's ephemeral range."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return int(listener.getsockname()[1])


def exchange(port: int, message: bytes, timeout_s: float = 0.5) -> bytes:
    """Send a message to a local port and return the first bytes of the answer; empty where there is none."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout_s) as connection:
            connection.settimeout(timeout_s)
            if message:
                connection.sendall(message)
            return connection.recv(4096)
    except OSError:
        return b""


def write_private(path: Path, text: str, uid: int | None = None, gid: int | None = None) -> None:
    """Write a file that only its owner can read (0600), replacing it atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        if uid is not None:
            os.fchown(descriptor, uid, -1 if gid is None else gid)
        file.write(text)
    temporary.replace(path)


def secret_file(path: Path, make: Callable[[], str] = lambda: secrets.token_urlsafe(24)) -> str:
    """The secret kept in a 0600 file; `make` gives its value when the file is missing (24 random bytes).

    Of several that find it missing at once, one wins and all read the same value.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        proposal = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        write_private(proposal, make())
        with contextlib.suppress(FileExistsError):
            os.link(proposal, path)
        proposal.unlink()
    return path.read_text().strip()


def unprivileged_user() -> tuple[int, int] | None:
    """User and group for programs that refuse root; None when the caller is not root.

    `nobody` comes last because sandboxes commonly run as it and must not own the database's files.
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "daemon", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    raise RuntimeError("no unprivileged account (postgres, daemon or nobody) exists to run PostgreSQL as")


def closed_parent(path: Path, uid: int, gid: int) -> Path | None:
    """The first existing folder above `path` that this user cannot pass through, or None."""
    for parent in reversed(path.absolute().parents):
        if not parent.exists():
            return None
        found = parent.stat()
        if found.st_uid == uid:
            bit = stat.S_IXUSR
        elif found.st_gid == gid:
            bit = stat.S_IXGRP
        else:
            bit = stat.S_IXOTH
        if not found.st_mode & bit:
            return parent
    return None


@contextlib.contextmanager
def scratch_directory(prefix: str = "omoios-") -> Iterator[Path]:
    """A temporary directory that programs running as another user can pass through; removed at the end.

    pytest's `tmp_path` is closed to other users, so PostgreSQL started by root cannot use it.
    """
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@dataclass
class PartGroup:
    """Parts that are started in order and stopped in reverse order."""

    parts: list[EmbeddedPart] = field(default_factory=list)

    def __enter__(self) -> Self:
        try:
            for part in self.parts:
                part.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for part in reversed(self.parts):
            part.stop()
