"""The supervisor of the embedded stack, with environments that a scenario may overlay: `STATE_DIR OFFSET`.

`overlay.json` in the state directory holds service → variables to set (null removes one). It is read at every start of
a process, so a changed overlay holds from the next restart of that service on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from omoios_local.daemon import Daemon
from omoios_local.embedded.process import Command
from omoios_local.environment import operator_settings
from omoios_local.ports import PortPlan
from omoios_local.runnable import PartSpec, Runnable
from omoios_local.stack import Stack
from omoios_local.state import State, repository_root

OVERLAY = "overlay.json"
WATCH_EVERY_S = 1.0


@dataclass(frozen=True)
class OverlaidPart:
    """A service's process with the variables that the overlay names changed."""

    name: str
    part: Runnable
    file: Path

    def prepare(self) -> None:
        self.part.prepare()

    def command(self) -> Command:
        command = self.part.command()
        changes = json.loads(self.file.read_text()).get(self.name, {}) if self.file.exists() else {}
        kept = {name: value for name, value in command.env.items() if name not in changes}
        return replace(command, env=kept | {name: value for name, value in changes.items() if value is not None})

    def ready(self) -> bool:
        return self.part.ready()


class OverlaidStack(Stack):
    """The embedded stack, its services behind overlays."""

    def _service(self, name: str) -> PartSpec:
        spec = super()._service(name)
        file = self.state.directory / OVERLAY
        return replace(spec, make=lambda number: OverlaidPart(name, spec.make(number), file))


class WatchedDaemon(Daemon):
    """Ends the stack when the run that started it is gone, however that ended."""

    async def run(self) -> None:
        watch = asyncio.create_task(self._watch(os.getppid()))
        try:
            await super().run()
        finally:
            watch.cancel()

    async def _watch(self, parent: int) -> None:
        while os.getppid() == parent:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.supervisor.stopping.wait(), WATCH_EVERY_S)
                return
        self.supervisor.stopping.set()


def main(arguments: list[str]) -> None:
    state, offset = State(Path(arguments[0]).absolute()), int(arguments[1])
    state.create()
    os.chdir("/")
    with state.locked():
        root = repository_root()
        stack = OverlaidStack(root, state, PortPlan(offset), operator_settings())
        state.write(state.stack_file, {"offset": offset, "clone": str(root)})
        asyncio.run(WatchedDaemon(state, stack).run())


if __name__ == "__main__":
    main(sys.argv[1:])
