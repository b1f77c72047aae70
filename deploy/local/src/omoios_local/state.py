"""Where a stack keeps its data, and the file that says so."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from omoios_local.embedded.process import write_private

MARKER = ".omoios-state"
# A unix socket's address holds 108 bytes on Linux and 104 on macOS, the final zero included.
SOCKET_PATH_LIMIT = 100
# Whoever asks whether a supervisor runs holds its lock for a moment, which must not keep one from starting.
LOCK_WAIT_S = 1.0

KEPT = (
    "data",
    "logs",
    "mail",
    "migrated",
    "nats",
    "postgres",
    "redis",
    "repositories",
    "runners",
    "secrets",
    "tools",
    "traefik",
)


class StateError(RuntimeError):
    """The state directory cannot be used; the message says why and what to do."""


def repository_root() -> Path:
    """The clone that this package lies in."""
    return Path(__file__).resolve().parents[4]


def choose_directory(clone: Path, offset: int, environment: Mapping[str, str], uid: int) -> Path:
    """`OMOIOS_STATE_DIR`, else `/var/lib/omoios/<hash of the clone's path>` for root, else `<clone>/.omoios`.

    A shifted stack keeps data of its own, so that it can run beside the one on the default ports.
    """
    chosen = environment.get("OMOIOS_STATE_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()
    if uid == 0:
        digest = hashlib.sha256(str(clone).encode()).hexdigest()[:12]
        return Path("/var/lib/omoios") / (f"{digest}-{offset}" if offset else digest)
    return clone / ".omoios" / f"shifted-{offset}" if offset else clone / ".omoios"


@dataclass(frozen=True)
class State:
    """The directory of one stack: secrets, data of every part, logs, and the supervisor's own files."""

    directory: Path

    @property
    def secrets(self) -> Path:
        return self.directory / "secrets"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def mail(self) -> Path:
        return self.directory / "mail"

    @property
    def migrated(self) -> Path:
        return self.directory / "migrated"

    @property
    def repositories(self) -> Path:
        """Clones that projects may name by path, made for that by the one who starts the stack."""
        return self.directory / "repositories"

    def data(self, service: str) -> Path:
        """A service's own files, such as the mirrors of vcs."""
        return self.directory / "data" / service

    def runner(self, instance: int) -> Path:
        """Working directory of a runner; as root open to pass through, because sandboxes run as other users."""
        folder = self.directory / "runners"
        folder.mkdir(exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
        return folder / str(instance)

    def allowed_roots(self) -> list[str]:
        """Folders whose repositories vcs may read by path, as `allow_root` recorded them."""
        found = self.read(self.allowed_file).get("repository_roots", [])
        return [str(path) for path in found]

    def allow_root(self, folder: Path) -> bool:
        """Record a folder; False when it or one above it was allowed before."""
        known = self.allowed_roots()
        if any(folder.is_relative_to(path) for path in known):
            return False
        self.write(self.allowed_file, {"repository_roots": [*known, str(folder)]})
        return True

    @property
    def allowed_file(self) -> Path:
        return self.directory / "allowed.json"

    @property
    def processes_file(self) -> Path:
        return self.directory / "processes.json"

    @property
    def stack_file(self) -> Path:
        return self.directory / "stack.json"

    @property
    def lock_file(self) -> Path:
        return self.directory / "supervisor.lock"

    @property
    def socket_path(self) -> Path:
        """The supervisor's control socket; in a private folder of the temporary one where the path is too long."""
        path = self.directory / "supervisor.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
            return path
        digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"omoios-{os.geteuid()}" / f"{digest}.sock"

    def create(self) -> None:
        """Make the folders. Raises StateError when the directory belongs to something else."""
        if self.directory.exists() and not self.exists() and any(self.directory.iterdir()):
            raise StateError(f"{self.directory} holds other files; choose an empty directory with OMOIOS_STATE_DIR")
        # As root, PostgreSQL runs as another user and must pass through; the folders inside are closed one by one.
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o711)
        self.directory.chmod(0o711 if os.geteuid() == 0 else 0o700)
        (self.directory / MARKER).touch()
        for folder in (self.secrets, self.logs, self.mail, self.migrated, self.directory / "data"):
            folder.mkdir(exist_ok=True, mode=0o700)
        parent = self.socket_path.parent
        parent.mkdir(exist_ok=True, mode=0o700)
        if parent != self.directory and (parent.stat().st_uid != os.geteuid() or parent.stat().st_mode & 0o077):
            raise StateError(f"{parent} must belong to this user and be closed to others")

    def exists(self) -> bool:
        return (self.directory / MARKER).exists()

    def delete(self) -> None:
        """Delete everything that a stack keeps. Raises StateError where no stack keeps anything.

        Only known names are deleted, so that a mistaken OMOIOS_STATE_DIR loses nothing else.
        """
        if not self.exists():
            raise StateError(f"{self.directory} is not the state directory of a stack; nothing was deleted")
        for name in KEPT:
            shutil.rmtree(self.directory / name, ignore_errors=True)
        for file in (
            self.processes_file,
            self.stack_file,
            self.allowed_file,
            self.lock_file,
            self.socket_path,
            self.directory / MARKER,
        ):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.directory.rmdir()

    def read(self, file: Path) -> dict[str, Any]:
        """A JSON object that the supervisor wrote; empty when there is none."""
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            found = json.loads(file.read_text())
            if isinstance(found, dict):
                return found
        return {}

    def write(self, file: Path, content: Mapping[str, Any]) -> None:
        write_private(file, json.dumps(content, indent=1, sort_keys=True) + "\n")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the supervisor's lock; the kernel lets it go when the process ends in whatever way.

        Raises StateError when another supervisor of this directory lives.
        """
        deadline = time.monotonic() + LOCK_WAIT_S
        with self.lock_file.open("a+") as file:
            while not _lock(file):
                if time.monotonic() > deadline:
                    raise StateError(f"another supervisor runs on {self.directory}")
                time.sleep(0.02)
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    def supervised(self) -> bool:
        """Whether a supervisor holds the lock now."""
        if not self.lock_file.exists():
            return False
        with self.lock_file.open("a+") as file:
            if not _lock(file):
                return True
            fcntl.flock(file, fcntl.LOCK_UN)
        return False


def _lock(file: IO[str]) -> bool:
    """Take the lock of a file unless somebody has it; tells whether it was taken."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
