"""`python -m omoios_local.daemon STATE_DIR OFFSET`: the supervisor's process, answering on the control socket."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from omoios_local import control
from omoios_local.environment import operator_settings
from omoios_local.ports import SERVICES, PortPlan
from omoios_local.stack import Stack
from omoios_local.state import State, StateError, repository_root
from omoios_local.supervisor import Supervisor


class Daemon:
    """Turns control requests into calls of the supervisor."""

    def __init__(self, state: State, stack: Stack) -> None:
        self.state = state
        self.stack = stack
        self._ending = False
        self.supervisor = Supervisor(
            state, stack.specs(), on_scaled=self._render_gateway, on_removed=stack.plan.release
        )
        stack.numbers = lambda name: [number for part, number in self.supervisor.units if part == name]

    async def run(self) -> None:
        """Serve until `down` or SIGTERM. The state's lock must be held."""
        loop = asyncio.get_running_loop()
        ended = self.supervisor.stopping
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
        for line in await asyncio.to_thread(self.supervisor.recover):
            print(f"ended {line}, left by a supervisor that died", flush=True)
        self.supervisor.subscribe(lambda unit: print(log_line(unit), flush=True))
        rotation = asyncio.create_task(self.supervisor.keep_logs_small())
        server = await control.serve(self.state.socket_path, self.handle)
        async with server:
            await ended.wait()
        rotation.cancel()
        await self.supervisor.down()
        self.state.socket_path.unlink(missing_ok=True)

    async def handle(self, request: dict[str, Any], send: control.Send) -> Any:
        verb = request.get("verb")
        supervisor = self.supervisor
        if verb == "ping":
            if self._ending:
                raise RuntimeError("the stack is going down")
            return {"pid": os.getpid(), "offset": self.stack.plan.offset}
        if verb == "status":
            return supervisor.describe()
        if verb == "up":
            return await self._up(request, send)
        if verb == "down":
            self._ending = True
            unsubscribe = supervisor.subscribe(send)
            await supervisor.down()
            unsubscribe()
            supervisor.stopping.set()
            return {"pid": os.getpid()}
        if verb == "kill":
            number = signal.Signals[f"SIG{request['signal']}"]
            return supervisor.kill(request["part"], number, request.get("instance"))
        if verb == "restart":
            unsubscribe = supervisor.subscribe(send)
            try:
                return await supervisor.restart(request["part"], request.get("instance"))
            finally:
                unsubscribe()
        if verb == "stop":
            await supervisor.stop_parts(request["parts"])
            return supervisor.describe()
        if verb == "migrate":
            names = [f"migrate-{name}" for name in SERVICES]
            await supervisor.stop_parts(names)
            return await self._up({"only": names}, send)
        raise ValueError(f"unknown verb {verb}")

    async def _up(self, request: dict[str, Any], send: control.Send) -> list[dict[str, Any]]:
        if request.get("runner_settings"):
            self.stack.give_runner_settings(request["runner_settings"])
        unsubscribe = self.supervisor.subscribe(send)
        try:
            return await self.supervisor.up(request.get("only"), request.get("instances"))
        finally:
            unsubscribe()
            if not self.supervisor.units:
                self.supervisor.stopping.set()

    def _render_gateway(self) -> None:
        """Tell a running gateway which instances exist now."""
        if ("gateway", 1) in self.supervisor.units and self.stack.gateway.static_file.exists():
            self.stack.gateway.prepare()


def log_line(unit: dict[str, Any]) -> str:
    number = "" if unit["instance"] == 1 else f"-{unit['instance']}"
    return f"{unit['part']}{number}: {unit['state']} {unit['detail']}".rstrip()


def main(arguments: list[str]) -> None:
    state = State(Path(arguments[0]).absolute())
    offset = int(arguments[1])
    state.create()
    # The folder that `up` was called in must stay free to be deleted or unmounted.
    os.chdir("/")
    with state.locked():
        root = repository_root()
        stack = Stack(root, state, PortPlan(offset), operator_settings())
        state.write(state.stack_file, {"offset": offset, "clone": str(root)})
        asyncio.run(Daemon(state, stack).run())


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (StateError, OSError) as error:
        sys.exit(str(error))
