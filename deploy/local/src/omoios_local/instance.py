"""One supervised process: started when what it needs is ready, watched, restarted with backoff, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from abc import ABC, abstractmethod
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omoios_local.embedded.process import Command, tail
from omoios_local.processes import ProcessTable
from omoios_local.runnable import PartSpec, StepSpec

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 30.0
# A process that stayed ready this long starts again without the delays that earlier failures earned.
STABLE_AFTER_S = 30.0
PROBE_EVERY_S = 0.05


def backoff_s(failures: int) -> float:
    """Delay before the next start after so many failures in a row: 0.2 s, doubling, at most 30 s."""
    return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(max(failures - 1, 0), 30)))


class Unit(ABC):
    """What the supervisor keeps of one process or step. `on_change` is called after every change of state."""

    def __init__(self, name: str, number: int, wait_for_needs: Callable[[], Awaitable[None]]) -> None:
        self.name = name
        self.number = number
        self.state = "waiting"
        self.detail = ""
        self.restarts = 0
        self.failures = 0
        self.last_failure = ""
        self.ready_event = asyncio.Event()
        self.on_change: Callable[[Unit], None] = lambda _: None
        self.began = time.monotonic()
        self.ready_after_s: float | None = None
        self._wait_for_needs = wait_for_needs
        self._task: asyncio.Task[None] | None = None
        self._wanted = False
        self._interruptible = False
        self._wake = asyncio.Event()

    def start(self) -> None:
        if self._task is None or self._task.done():
            self._wanted = True
            # A step that runs once more is ready only when it is done once more.
            self.ready_event.clear()
            self.began = time.monotonic()
            self._task = asyncio.create_task(self._run(), name=f"{self.name}-{self.number}")

    async def stop(self) -> None:
        """End the work and wait until it has ended; a process that is just being made is ended too."""
        self._wanted = False
        self._wake.set()
        while self._task is not None and not self._task.done():
            if self._interruptible:
                self._task.cancel()
            else:
                await self._end()
            await asyncio.wait({self._task}, timeout=0.05)
        self._set("stopped")

    def describe(self) -> dict[str, Any]:
        return {
            "part": self.name,
            "instance": self.number,
            "state": self.state,
            "detail": self.detail,
            "restarts": self.restarts,
            "failures": self.failures,
            "last_failure": self.last_failure,
            "ready_after_s": self.ready_after_s,
        }

    @abstractmethod
    async def _run(self) -> None:
        """Start, watch and start again until nobody wants it any more."""

    @abstractmethod
    async def _end(self) -> None:
        """End what runs now."""

    async def _needs(self) -> None:
        self._interruptible = True
        try:
            await self._wait_for_needs()
        finally:
            self._interruptible = False

    def _set(self, state: str, detail: str = "") -> None:
        self.state, self.detail = state, detail
        if state in ("ready", "done"):
            self.ready_after_s = round(time.monotonic() - self.began, 2)
            self.ready_event.set()
        else:
            self.ready_event.clear()
        self.on_change(self)

    async def _pause(self, detail: str) -> None:
        """Wait out the backoff after a failure, or until somebody asks for a start now."""
        self.failures += 1
        self.last_failure = detail
        delay = backoff_s(self.failures)
        self._set("backoff", f"{detail}; next start in {delay:g} s")
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), delay)
        self.began = time.monotonic()


class Step(Unit):
    """Runs a StepSpec until it succeeds once."""

    def __init__(self, spec: StepSpec, log_file: Path, wait_for_needs: Callable[[], Awaitable[None]]) -> None:
        super().__init__(spec.name, 1, wait_for_needs)
        self.log_file = log_file
        self._spec = spec

    async def _run(self) -> None:
        while self._wanted:
            await self._needs()
            self._set("running")
            try:
                detail = await asyncio.to_thread(self._spec.run)
            except Exception as error:
                text = str(error) or type(error).__name__
                self._note(text)
                await self._pause(text.strip().splitlines()[-1][-300:])
                continue
            self._note(detail)
            self.failures = 0
            self._set("done", detail)
            return

    def _note(self, text: str) -> None:
        with self.log_file.open("a") as log:
            log.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}\n")

    async def _end(self) -> None:
        """A step is left to finish: it is short, and half a migration helps nobody."""


class Instance(Unit):
    """Keeps one process of a part running until told to stop."""

    def __init__(
        self,
        spec: PartSpec,
        number: int,
        log_file: Path,
        table: ProcessTable,
        wait_for_needs: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(spec.name, number, wait_for_needs)
        self.spec = spec
        self.log_file = log_file
        self.runnable = spec.make(number)
        self.process: Process | None = None
        self._command: Command | None = None
        self._table = table
        self._restart_asked = False

    @property
    def pid(self) -> int | None:
        return None if self.process is None or self.process.returncode is not None else self.process.pid

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"pid": self.pid, "ports": [claim.port for claim in self.spec.claims(self.number)]}

    def send_signal(self, number: signal.Signals) -> int:
        """Signal the process; returns its id. Raises ProcessLookupError when it does not run."""
        if self.pid is None:
            raise ProcessLookupError(f"{self.name} does not run")
        os.kill(self.pid, number)
        return self.pid

    async def restart(self) -> None:
        """End the process; it starts again at once, without backoff."""
        self._restart_asked = True
        self.failures = 0
        self._wake.set()
        await self._end()

    async def stop(self) -> None:
        self._set("stopping")
        await super().stop()

    async def _run(self) -> None:
        while self._wanted:
            self._set("waiting")
            await self._needs()
            self._set("starting")
            self._restart_asked = False
            try:
                reason = await self._live()
            except Exception as error:
                reason = str(error) or type(error).__name__
            if not self._wanted:
                return
            self.restarts += 1
            self.began = time.monotonic()
            if not self._restart_asked:
                await self._pause(reason)

    async def _live(self) -> str:
        """One life of the process; returns why it ended."""
        await asyncio.to_thread(self.runnable.prepare)
        self._command = command = self.runnable.command()
        with self.log_file.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *command.argv,
                env=dict(command.env),
                cwd=command.cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                user=command.uid,
                group=command.gid,
                extra_groups=command.extra_groups,
            )
        self._table.add(self.process.pid, self.name, self.number, command.stop_signal)
        ended = asyncio.create_task(self.process.wait())
        if not self._wanted:
            await self._end()
        try:
            if not await self._until_ready(ended):
                await self._end()
                await ended
                return f"not ready within {self.spec.ready_within_s:g} s"
            if not ended.done() and self._wanted:
                self._set("ready")
                began = time.monotonic()
                await ended
                if time.monotonic() - began > STABLE_AFTER_S:
                    self.failures = 0
            return exit_reason(await ended, self.log_file)
        finally:
            pid = self.process.pid
            if ended.done():
                self._table.remove(pid)
                # Children that outlived their parent hold ports and files that the next life needs.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
            else:
                ended.cancel()

    async def _until_ready(self, ended: asyncio.Task[int]) -> bool:
        """True when the process answers or has ended; False when its time is over."""
        deadline = time.monotonic() + self.spec.ready_within_s
        while not ended.done() and not await asyncio.to_thread(self.runnable.ready):
            if time.monotonic() > deadline:
                return False
            await asyncio.wait({ended}, timeout=PROBE_EVERY_S)
        return True

    async def _end(self) -> None:
        """The part's own stop signal, then SIGKILL to its process group when the time is over."""
        process = self.process
        if process is None or process.returncode is not None or self._command is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(self._command.stop_signal)
            # A stopped process (SIGSTOP) sees the signal only when it goes on.
            process.send_signal(signal.SIGCONT)
        try:
            await asyncio.wait_for(process.wait(), self.spec.stop_within_s)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def exit_reason(code: int, log_file: Path) -> str:
    """`ended by SIGKILL` or `exit code 1: <last line of the log>`."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    last = tail(log_file, 1).strip()
    return f"exit code {code}: {last[-300:]}" if last else f"exit code {code}"
