"""The supervisor: every process and step of one stack, in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from omoios_local import ports, rotation
from omoios_local.instance import Instance, Step, Unit
from omoios_local.processes import ProcessTable
from omoios_local.runnable import PartSpec, StepSpec, closure, order
from omoios_local.state import State

ROTATE_EVERY_S = 10.0
# The gateway asks an absent instance every 0.5 s whether it is back, a gRPC client tries it again within a second: only
# then may the next instance of the part go.
NOTICED_AFTER_S = 2.0
# A part that failed this often in a row without becoming ready will not come up by waiting.
HOPELESS_AFTER = 4

Progress = Callable[[dict[str, Any]], None]


class UpFailed(RuntimeError):
    """The stack did not become ready; the message names the parts and why."""


class Supervisor:
    """Starts, watches and ends units. All methods are called from one event loop."""

    def __init__(
        self,
        state: State,
        specs: list[PartSpec | StepSpec],
        *,
        on_scaled: Callable[[], None] = lambda: None,
        on_removed: Callable[[str, int], None] = lambda _name, _number: None,
    ) -> None:
        self.state = state
        self.specs = {spec.name: spec for spec in specs}
        self.order = order(specs)
        self.units: dict[tuple[str, int], Unit] = {}
        self.table = ProcessTable(state)
        self.stopping = asyncio.Event()
        self._on_scaled = on_scaled
        self._on_removed = on_removed
        self._listeners: set[Progress] = set()
        self._changing = asyncio.Lock()

    def recover(self) -> list[str]:
        """End what a supervisor that died left running. Returns `part (pid N)` of each."""
        return [f"{row.part} (pid {row.pid})" for row in self.table.end_all()]

    async def keep_logs_small(self) -> None:
        while True:
            await asyncio.sleep(ROTATE_EVERY_S)
            await asyncio.to_thread(rotation.rotate_all, self.state.logs)

    def subscribe(self, listener: Progress) -> Callable[[], None]:
        """`listener(unit.describe())` after each change; returns the function that ends it."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    async def up(
        self, only: list[str] | None = None, instances: Mapping[str, int] | None = None, timeout_s: float = 120.0
    ) -> list[dict[str, Any]]:
        """Start what is asked for and does not run yet, and wait until all of it is ready.

        `only`: these parts and what they need (default: all). `instances`: part → number of processes; parts not
        named keep the number they have. Raises PortsBusy before anything starts, ValueError for an unknown part,
        UpFailed when a part fails again and again or the time is over (what runs is left running).
        """
        async with self._changing:
            wanted = await self._plan(only, dict(instances or {}))
            for unit in wanted:
                unit.start()
            self._on_scaled()
        await self._until_ready(wanted, timeout_s)
        return self.describe()

    async def _plan(self, only: list[str] | None, instances: dict[str, int]) -> list[Unit]:
        for name, number in instances.items():
            self._check_scale(name, number)
        names = closure(list(self.specs.values()), list(only)) if only else set(self.specs)
        names |= closure(list(self.specs.values()), list(instances)) if only else set()
        new: list[tuple[PartSpec | StepSpec, int]] = []
        wanted: list[Unit] = []
        for name in self.order:
            if name not in names:
                continue
            spec = self.specs[name]
            running = [number for part, number in self.units if part == name]
            default = spec.instances if isinstance(spec, PartSpec) else 1
            target = instances.get(name, max(len(running), default))
            for number in sorted(running, reverse=True):
                if number > target:
                    await self._remove(name, number)
            for number in range(1, target + 1):
                if (name, number) in self.units:
                    wanted.append(self.units[name, number])
                else:
                    new.append((spec, number))
        claims = [claim for spec, number in new if isinstance(spec, PartSpec) for claim in spec.claims(number)]
        await asyncio.to_thread(ports.check, claims)
        return wanted + [self._add(spec, number) for spec, number in new]

    def _check_scale(self, name: str, number: int) -> None:
        spec = self.specs.get(name)
        if not isinstance(spec, PartSpec):
            raise ValueError(f"unknown part {name}")
        if number < 0 or (number != 1 and not spec.scalable):
            raise ValueError(f"{name} runs as one process; {number} were asked for")

    def _add(self, spec: PartSpec | StepSpec, number: int) -> Unit:
        async def wait_for_needs() -> None:
            for need in spec.needs:
                unit = self.units.get((need, 1))
                if unit is not None:
                    await unit.ready_event.wait()

        unit: Unit
        suffix = "" if number == 1 else f"-{number}"
        log_file = self.state.logs / f"{spec.name}{suffix}.log"
        if isinstance(spec, PartSpec):
            unit = Instance(spec, number, log_file, self.table, wait_for_needs)
        else:
            unit = Step(spec, log_file, wait_for_needs)
        unit.on_change = self._changed
        self.units[spec.name, number] = unit
        return unit

    async def _remove(self, name: str, number: int) -> None:
        unit = self.units.pop((name, number))
        await unit.stop()
        self._on_removed(name, number)

    def _changed(self, unit: Unit) -> None:
        for listener in list(self._listeners):
            listener(unit.describe())

    async def _until_ready(self, wanted: list[Unit], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while missing := [unit for unit in wanted if not unit.ready_event.is_set()]:
            hopeless = [unit for unit in missing if unit.failures >= HOPELESS_AFTER]
            if hopeless or time.monotonic() > deadline:
                raise UpFailed("\n".join(why_not_ready(unit) for unit in hopeless or missing))
            await asyncio.sleep(0.02)

    async def down(self) -> None:
        """End every process, the ones that others need last; each group at once."""
        async with self._changing:
            for level in reversed(self._levels()):
                await asyncio.gather(*(unit.stop() for unit in level))
            self.units.clear()

    def _levels(self) -> list[list[Unit]]:
        """Units grouped so that each group may end before all earlier ones."""
        depth: dict[str, int] = {}

        def depth_of(name: str) -> int:
            if name not in depth:
                spec = self.specs[name]
                outlived = spec.ends_before if isinstance(spec, PartSpec) else ()
                depth[name] = 1 + max((depth_of(other) for other in (*spec.needs, *outlived)), default=0)
            return depth[name]

        levels: dict[int, list[Unit]] = {}
        for (name, _), unit in self.units.items():
            levels.setdefault(depth_of(name), []).append(unit)
        return [levels[level] for level in sorted(levels)]

    def find(self, name: str, number: int | None = None) -> list[Instance]:
        """Processes of a part, or the one with that number. Raises ValueError when there is none."""
        found = [
            unit
            for (part, instance), unit in sorted(self.units.items())
            if part == name and number in (None, instance) and isinstance(unit, Instance)
        ]
        if not found:
            known = sorted({part for (part, _), unit in self.units.items() if isinstance(unit, Instance)})
            which = name if number is None else f"{name} instance {number}"
            raise ValueError(f"{which} does not run; running are {', '.join(known) or 'none'}")
        return found

    def kill(self, name: str, number: signal.Signals, instance: int | None = None) -> list[int]:
        """Send a signal to a part's processes; returns their ids."""
        sent = []
        for found in self.find(name, instance):
            if found.state == "ready":
                # Whoever ends a process that was well has it back at once, however often.
                found.failures = 0
            with contextlib.suppress(ProcessLookupError):
                sent.append(found.send_signal(number))
        if not sent:
            raise ValueError(f"{name} has no living process now")
        return sent

    async def restart(self, name: str, instance: int | None = None, timeout_s: float = 60.0) -> list[dict[str, Any]]:
        """End a part's processes one after the other; each is ready, and its callers know, before the next ends."""
        found = self.find(name, instance)
        for position, unit in enumerate(found):
            if position:
                await asyncio.sleep(NOTICED_AFTER_S)
            before = unit.pid
            await unit.restart()
            deadline = time.monotonic() + timeout_s
            while unit.pid == before or not unit.ready_event.is_set():
                if time.monotonic() > deadline or unit.failures >= HOPELESS_AFTER:
                    raise UpFailed(why_not_ready(unit))
                await asyncio.sleep(0.02)
        return [unit.describe() for unit in found]

    async def stop_parts(self, names: list[str]) -> None:
        """End every process of these parts together; `up` starts them again."""
        async with self._changing:
            chosen = [key for key in self.units if key[0] in names]
            await asyncio.gather(*(self.units[key].stop() for key in chosen))
            for key in chosen:
                self.units.pop(key)

    def describe(self) -> list[dict[str, Any]]:
        """Every unit, what others need first."""
        position = {name: index for index, name in enumerate(self.order)}
        keys = sorted(self.units, key=lambda key: (position[key[0]], key[1]))
        return [self.units[key].describe() for key in keys]


def why_not_ready(unit: Unit) -> str:
    """`part: state, and why it last failed`, indented."""
    reason = unit.detail or (f"(last failure: {unit.last_failure})" if unit.last_failure else "")
    return f"  {unit.name}: {unit.state} {reason}".rstrip()
