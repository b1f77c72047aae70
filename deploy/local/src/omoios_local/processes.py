"""The list of processes that a supervisor started, on disk, so that the next one ends exactly those and no other."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import asdict, dataclass

import psutil

from omoios_local.state import State

# Start times are compared with this tolerance in seconds: the kernel counts in hundredths.
SAME_START_S = 0.05


@dataclass(frozen=True)
class StartedProcess:
    """A process id with the moment it started, which tells it from a later process that was given the same id."""

    pid: int
    created: float
    part: str
    instance: int
    stop_signal: int

    def alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < SAME_START_S
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False


class ProcessTable:
    """`processes.json` of a state directory."""

    def __init__(self, state: State) -> None:
        self._state = state
        rows = state.read(state.processes_file).get("processes", [])
        self._rows = {row["pid"]: StartedProcess(**row) for row in rows}

    def add(self, pid: int, part: str, instance: int, stop_signal: int) -> None:
        with contextlib.suppress(psutil.Error):
            created = psutil.Process(pid).create_time()
            self._rows[pid] = StartedProcess(pid, created, part, instance, int(stop_signal))
            self._save()

    def remove(self, pid: int) -> None:
        if self._rows.pop(pid, None) is not None:
            self._save()

    def living(self) -> list[StartedProcess]:
        return [row for row in self._rows.values() if row.alive()]

    def end_all(self, timeout_s: float = 15.0) -> list[StartedProcess]:
        """End every listed process that still lives: its stop signal, then SIGKILL. Returns those it ended."""
        living = self.living()
        for row in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(row.pid, row.stop_signal)
                os.kill(row.pid, signal.SIGCONT)
        deadline = time.monotonic() + timeout_s
        while any(row.alive() for row in living) and time.monotonic() < deadline:
            time.sleep(0.05)
        for row in living:
            if row.alive():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(row.pid, signal.SIGKILL)
        self._rows.clear()
        self._save()
        return living

    def _save(self) -> None:
        rows = [asdict(row) for row in self._rows.values()]
        self._state.write(self._state.processes_file, {"processes": rows})
