"""What the command line and other programs (demo, tests, bench) use to drive one stack."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from omoios_local import control
from omoios_local.embedded.process import tail
from omoios_local.environment import RUNNER_PREFIX, operator_settings
from omoios_local.ports import LARGEST_OFFSET, PortPlan
from omoios_local.processes import ProcessTable
from omoios_local.stack import Stack
from omoios_local.state import State, StateError, choose_directory, repository_root

Progress = Callable[[dict[str, Any]], None]
# The supervisor before may have to end all its processes first.
DAEMON_START_S = 60.0
# A gateway asks twice a second whether an absent service is back. Much longer, and something is wrong with it.
GATEWAY_S = 60.0
_PATHS = {
    "identity": "/api/v1/auth/me",
    "workflow": "/api/v1/projects",
    "agents": "/api/v1/agents",
    "monitoring": "/api/v1/monitor/dashboard",
    "billing": "/api/v1/costs/records",
    "vcs": "/api/v1/commits/none",
}
# Anything else, a 503 included, is the service's own answer.
_NOT_REACHED = frozenset({502, 504})


def _ignore(_: dict[str, Any]) -> None:
    return


@dataclass(frozen=True)
class StackClient:
    """One stack, running or not: its state directory and the offset of its ports."""

    state: State
    offset: int

    @classmethod
    def here(cls, offset: int | None = None, environment: Mapping[str, str] | None = None) -> StackClient:
        """The stack that the environment names. Without an offset, that of the directory's running stack, else 0."""
        given = os.environ if environment is None else environment
        named = given.get("OMOIOS_PORT_OFFSET")
        if offset is None and named:
            if not named.isdecimal() or int(named) > LARGEST_OFFSET:
                raise ValueError(f"OMOIOS_PORT_OFFSET must be a whole number from 0 to {LARGEST_OFFSET}, not {named}")
            offset = int(named)
        state = State(choose_directory(repository_root(), offset or 0, given, os.geteuid()))
        if offset is None:
            offset = int(state.read(state.stack_file).get("offset", 0)) if state.supervised() else 0
        return cls(state, offset)

    def stack(self) -> Stack:
        """The stack's description, for environments, addresses and secrets. Raises StateError before the first `up`."""
        if not self.state.exists():
            raise StateError(f"no stack was ever started in {self.state.directory}; start one with `make up`")
        return Stack(repository_root(), self.state, PortPlan(self.offset), operator_settings())

    def running(self) -> bool:
        return self.state.supervised() and control.answers(self.state.socket_path)

    def up(
        self, only: list[str] | None = None, instances: Mapping[str, int] | None = None, progress: Progress = _ignore
    ) -> list[dict[str, Any]]:
        """Start what is missing and wait until it is ready. Raises ControlError with the reason."""
        pid = self._ensure_daemon()
        runner_settings = {name: value for name, value in os.environ.items() if name.startswith(RUNNER_PREFIX)}
        request = {"verb": "up", "only": only, "instances": dict(instances or {}), "runner_settings": runner_settings}
        try:
            found: list[dict[str, Any]] = self.call(request, progress)
        except control.ControlError:
            # A supervisor that could start nothing ends; one with processes stays, to be looked at.
            if not self._keeps_something():
                self._await_end(pid)
            raise
        ready = {unit["part"] for unit in found if unit.get("state") == "ready"}
        if "gateway" in ready:
            await_gateway(self.stack().environments.public_url, ready)
        return found

    def down(self, progress: Progress = _ignore) -> list[str]:
        """End the supervisor and all it started; without a living one, what a dead one left. Returns the latter."""
        if self.state.supervised():
            pid = self.call({"verb": "down"}, progress)["pid"]
            self._await_end(pid)
            return []
        if not self.state.exists():
            return []
        return [f"{row.part} (pid {row.pid})" for row in ProcessTable(self.state).end_all()]

    def status(self) -> list[dict[str, Any]]:
        """Every part, instance and step; empty when nothing runs."""
        if not self.state.supervised():
            return []
        found: list[dict[str, Any]] = self.call({"verb": "status"})
        return found

    def kill(self, part: str, signal_name: str = "KILL", instance: int | None = None) -> list[int]:
        """Send a signal (`STOP`, `CONT`, `KILL`, `TERM`) to a part's processes; returns their ids."""
        found: list[int] = self.call({"verb": "kill", "part": part, "signal": signal_name, "instance": instance})
        return found

    def restart(self, part: str, instance: int | None = None, progress: Progress = _ignore) -> list[dict[str, Any]]:
        """End a part's processes one by one and wait until each is ready again."""
        found: list[dict[str, Any]] = self.call({"verb": "restart", "part": part, "instance": instance}, progress)
        return found

    def allow_repositories(self, folder: Path, progress: Progress = _ignore) -> bool:
        """Let vcs read repositories below a folder by path; a running vcs is restarted. False when it was allowed.

        Raises StateError before the first `up`, ValueError when the folder is missing.
        """
        resolved = folder.resolve()
        if not resolved.is_dir():
            raise ValueError(f"{folder} is not a folder")
        environments = self.stack().environments
        if any(resolved.is_relative_to(path) for path in environments.repository_roots()):
            return False
        self.state.allow_root(resolved)
        if any(unit["part"] == "vcs" for unit in self.status()):
            self.restart("vcs", progress=progress)
        return True

    def migrate(self, progress: Progress = _ignore) -> list[dict[str, Any]]:
        """Run the migrations of every service against the running database."""
        found: list[dict[str, Any]] = self.call({"verb": "migrate"}, progress)
        return found

    def stop(self, parts: list[str]) -> None:
        """End parts while the others go on; `up` starts them again."""
        self.call({"verb": "stop", "parts": parts})

    def call(self, request: dict[str, Any], progress: Progress = _ignore) -> Any:
        """One control request. Raises ControlError when no supervisor runs."""
        if not self.state.supervised():
            raise control.ControlError("the stack does not run; start it with `make up`")
        return control.call(self.state.socket_path, request, progress)

    def _keeps_something(self) -> bool:
        try:
            return bool(self.status())
        except (OSError, control.ControlError):
            return False

    def _ensure_daemon(self) -> int:
        """Start a supervisor unless one runs or is just starting; returns its process id."""
        started = None if self.running() else self._start_daemon()
        answer = control.call(self.state.socket_path, {"verb": "ping"})
        if started is not None and started != answer["pid"]:
            end_late(started)
        offset = int(answer["offset"])
        if offset != self.offset:
            raise control.ControlError(
                f"the stack in {self.state.directory} runs with port offset {offset}, not {self.offset}; "
                "end it first (`make down`) or choose another OMOIOS_STATE_DIR"
            )
        return int(answer["pid"])

    def _start_daemon(self) -> int | None:
        """Wait until a supervisor answers. Returns the id of one started here: another may have the lock."""
        self.state.create()
        log_file = self.state.logs / "supervisor.log"
        pid: int | None = None
        deadline = time.monotonic() + DAEMON_START_S
        while not control.answers(self.state.socket_path):
            if (pid is None or not lives(pid)) and not self.state.supervised():
                if pid is not None:
                    raise control.ControlError(f"the supervisor ended at once:\n{tail(log_file)}")
                pid = spawn_daemon(self.state.directory, self.offset, log_file)
            if time.monotonic() > deadline:
                raise control.ControlError(f"the supervisor is silent after {DAEMON_START_S:g} s:\n{tail(log_file)}")
            time.sleep(0.02)
        return pid

    def _await_end(self, pid: int, timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while self.state.supervised() or lives(pid):
            if time.monotonic() > deadline:
                raise control.ControlError(f"the supervisor (pid {pid}) did not end within {timeout_s:g} s")
            time.sleep(0.02)


def lives(pid: int) -> bool:
    """Whether a process runs; one that ended as our child is reaped, so that no zombie stays."""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def end_late(pid: int) -> None:
    """End a supervisor that came too late: it must not take over when the one before it ends."""
    while lives(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.02)


def spawn_daemon(directory: Path, offset: int, log_file: Path) -> int:
    """Start the supervisor in a session of its own; returns its process id."""
    argv = [sys.executable, "-P", "-m", "omoios_local.daemon", str(directory), str(offset)]
    log = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        streams = [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
        nothing = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        return os.posix_spawn(sys.executable, argv, os.environ, file_actions=[nothing, *streams], setsid=True)
    finally:
        os.close(log)


def log_files(state: State, part: str | None) -> list[Path]:
    """Log files of one part with all its instances, or of everything. Raises ValueError when there is none."""
    found = sorted(state.logs.glob("*.log"))
    if part is not None:
        found = [file for file in found if file.stem == part or file.stem.rpartition("-")[0] == part]
    if not found:
        raise ValueError(f"no log of {part or 'anything'} in {state.logs}")
    return found


def await_gateway(address: str, ready: set[str], within_s: float = GATEWAY_S) -> None:
    """Wait until the gateway at `address` reaches every service that is ready. Raises ControlError naming the others.

    A process that has just become ready is found by the gateway's next probe; whoever was told that the stack is up
    must not meet its 502 until then.
    """
    until = time.monotonic() + within_s
    missing = sorted(ready & _PATHS.keys())
    while missing := [part for part in missing if _status(address + _PATHS[part]) in _NOT_REACHED]:
        if time.monotonic() > until:
            raise control.ControlError(
                f"ready, but not reached through the gateway within {within_s:g} s: {', '.join(missing)}; "
                "see `make logs part=gateway`"
            )
        time.sleep(0.1)


def _status(url: str) -> int:
    """The status of a GET; 502 where nobody answers at all."""
    try:
        # A proxy of the environment is not for this machine's own addresses.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 502
