"""One steady load through the gateway, in a thread of its own, that faults can be put under.

Per tenant: a writer (tickets, tasks, moves), an executor (specs and their executions, hence reservations), a fake
runner (claims, sandbox events, heartbeats, usage, completions) and a reader of the WebSocket. Beside them a prober
reads from every service in turn, so that an outage is seen within a fraction of a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from tests.faults import tenant as tenants
from tests.faults.caller import Caller
from tests.faults.history import History
from tests.faults.runner import FakeRunner
from tests.faults.socket_reader import read_socket
from tests.faults.tenant import Tenant

TENANTS = ("alder", "birch", "cedar")
# Moves that a client may ask for; what is refused in between because the workflow moved the ticket itself is a `fail`.
NEXT_STATUS = {"backlog": "analyzing", "analyzing": "building", "building": "building-done", "building-done": "testing"}
PROBES: dict[str, str] = {
    "identity": "/auth/me",
    "workflow": "/projects/{project}",
    "agents": "/agents/{agent}",
    "monitoring": "/alerts",
    "billing": "/billing/account/{organization}",
    "vcs": "/commits/ticket/{ticket}",
}
"""A read of each service that needs nothing but its own database."""
PROBE_EVERY_S = 0.06
# While somebody waits for health: the prober's own pace would be most of what a recovery is seen to take.
PROBE_FAST_S = 0.025
PROBE_TIMEOUT_S = 8.0
PAGE = 500
T = TypeVar("T")


class Load:
    """Starts with `start()`, goes on until `stop()`; `pause()` lets the stack come to rest, `resume()` goes on."""

    def __init__(self, url: str, seed: int, pace: float = 1.0) -> None:
        self.url = url
        self.history = History(seed)
        self.pace = pace
        self.tenants: list[Tenant] = []
        self._seed = seed
        self._mark = f"{seed:x}"
        self._waiting_for_health = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="load", daemon=True)
        self._writing: asyncio.Event
        self._stopping = False
        self._busy = 0
        self._tasks: list[asyncio.Task[None]] = []
        self.caller: Caller
        self.errors: list[str] = []

    def start(self) -> None:
        self._thread.start()
        self.call(self._begin())

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the load's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(180)

    def pause(self) -> None:
        """No new tickets, tasks, moves and executions; returns when those under way are answered."""
        self._loop.call_soon_threadsafe(self._writing.clear)
        deadline = time.monotonic() + 90
        time.sleep(0.1)
        while self._busy and time.monotonic() < deadline:
            time.sleep(0.05)

    def resume(self) -> None:
        self._loop.call_soon_threadsafe(self._writing.set)

    @contextlib.contextmanager
    def probing_fast(self) -> Iterator[None]:
        """Probe more often during the block."""
        self._waiting_for_health += 1
        try:
            yield
        finally:
            self._waiting_for_health -= 1

    def forget_frames(self) -> None:
        """Begin reading the WebSocket anew; to be called while nobody can be connected."""
        for tenant in self.tenants:
            tenant.last_sequence = None
        self.history.frames.clear()

    def stop(self) -> None:
        """End the load; operations under way stay unknown."""
        if self._thread.is_alive():
            self.call(self._end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
        self._loop.close()

    async def _begin(self) -> None:
        self._writing = asyncio.Event()
        self._writing.set()
        self.caller = Caller(self.url, self.history)
        for name in TENANTS:
            self.tenants.append(await tenants.made(self.caller, name, self._mark))
        for number, tenant in enumerate(self.tenants):
            await self._ticket(tenant, random.Random(f"{self._seed}-{number}"))
            if not tenant.tickets:
                raise tenants.SetUpFailed("the first ticket was not created")
            parts: list[Awaitable[None]] = [
                self._repeated(self._write, tenant, f"{self._seed}-writer-{number}", 0.25),
                self._repeated(self._execute, tenant, f"{self._seed}-executor-{number}", 4.0),
                FakeRunner(self.caller, tenant, self._seed + number).run(),
                read_socket(self, tenant),
            ]
            self._tasks += [asyncio.create_task(self._noted(part)) for part in parts]
        self._tasks.append(asyncio.create_task(self._noted(self._probe())))

    async def _end(self) -> None:
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.caller.close()

    async def _noted(self, part: Awaitable[None]) -> None:
        """A part of the load that breaks is a fault of the harness; it must not go unseen."""
        try:
            await part
        except Exception as error:
            self.errors.append(f"{type(error).__name__}: {error}")

    async def _repeated(
        self, work: Callable[[Tenant, random.Random], Awaitable[None]], tenant: Tenant, seed: str, every_s: float
    ) -> None:
        rng = random.Random(seed)
        while True:
            await asyncio.sleep(every_s * rng.uniform(0.5, 1.5) / self.pace)
            await self._writing.wait()
            if time.monotonic() - tenant.signed_in_at > tenants.SIGN_IN_AGAIN_AFTER_S:
                with contextlib.suppress(tenants.SetUpFailed):
                    await tenants.sign_in(self.caller, tenant)
            self._busy += 1
            try:
                await work(tenant, rng)
            finally:
                self._busy -= 1

    async def _write(self, tenant: Tenant, rng: random.Random) -> None:
        choice = rng.random()
        if tenant.backlogged:
            await self._move(tenant, rng)
        elif choice < 0.35:
            await self._ticket(tenant, rng)
        elif choice < 0.6:
            await self._task(tenant, rng)
        elif choice < 0.95:
            await self._move(tenant, rng)
        else:
            await self._project(tenant, rng)

    async def _ticket(self, tenant: Tenant, rng: random.Random) -> None:
        identity = self.history.next_id()
        body = {"title": f"{identity} ticket", "project_id": tenant.project_id, "check_duplicates": False}
        operation = self.history.begin("ticket.create", tenant.name, body, identity)
        patient = rng.random() < 0.5
        answer = await self.caller.operate(operation, "POST", "/tickets", tenant.token, body, patient=patient)
        if answer.ok:
            operation.answer = {"id": answer.document["id"]}
            tenant.tickets.append({"id": answer.document["id"], "status": answer.document["status"]})

    async def _task(self, tenant: Tenant, rng: random.Random) -> None:
        identity = self.history.next_id()
        ticket = rng.choice(tenant.tickets)
        body = {"ticket_id": ticket["id"], "title": f"{identity} task", "description": "Work of the load."}
        operation = self.history.begin("task.create", tenant.name, body, identity)
        patient = rng.random() < 0.5
        answer = await self.caller.operate(operation, "POST", "/tasks", tenant.token, body, patient=patient)
        if answer.ok:
            operation.answer = {"id": answer.document["id"]}

    async def _project(self, tenant: Tenant, rng: random.Random) -> None:
        identity = self.history.next_id()
        body = {"organization_id": tenant.organization_id, "name": f"{identity} project"}
        operation = self.history.begin("project.create", tenant.name, body, identity)
        patient = rng.random() < 0.5
        answer = await self.caller.operate(operation, "POST", "/projects", tenant.token, body, patient=patient)
        if answer.ok:
            operation.answer = {"id": answer.document["id"]}

    async def _move(self, tenant: Tenant, rng: random.Random) -> None:
        ticket = rng.choice(tenant.tickets)
        target = NEXT_STATUS.get(ticket["status"])
        if target is None:
            return
        body = {"to_status": target}
        operation = self.history.begin("ticket.move", tenant.name, {"ticket_id": ticket["id"], **body})
        path = f"/tickets/{ticket['id']}/transition"
        answer = await self.caller.operate(operation, "POST", path, tenant.token, body, patient=rng.random() < 0.5)
        if answer.ok:
            operation.answer = {"version": answer.document["version"], "status": answer.document["status"]}
            ticket["status"] = answer.document["status"]
        else:
            # The workflow moves tickets, too; a lost answer also leaves this client behind.
            now = await self.caller.request("ticket.read", "GET", f"/tickets/{ticket['id']}", tenant.token)
            if now.ok:
                ticket["status"] = now.document["status"]

    async def _execute(self, tenant: Tenant, rng: random.Random) -> None:
        if tenant.backlogged:
            return
        identity = self.history.next_id()
        body = {"project_id": tenant.project_id, "engine": "plan", "plan": plan(identity)}
        operation = self.history.begin("spec.create", tenant.name, {"title": f"{identity} spec"}, identity)
        answer = await self.caller.operate(operation, "POST", "/specs", tenant.token, body)
        if not answer.ok:
            return
        operation.answer = {"id": answer.document["id"]}
        await self.begin_execution(tenant, answer.document["id"], patient=rng.random() < 0.7)

    async def begin_execution(self, tenant: Tenant, spec_id: str, *, patient: bool = True) -> str | None:
        """Execute a spec; the id of the execution where it was acknowledged."""
        operation = self.history.begin("execution.start", tenant.name, {"spec_id": spec_id})
        path = f"/specs/{spec_id}/execute"
        answer = await self.caller.operate(operation, "POST", path, tenant.token, {}, patient=patient)
        if not answer.ok or answer.document.get("status") != "started":
            return None
        operation.answer = {"execution_id": answer.document["execution_id"]}
        return str(answer.document["execution_id"])

    async def burst(self, events: int) -> None:
        """One spec with so many tasks, hence at least as many events in one commit; it is never executed."""
        await self._spec(self.tenants[0], ["true"] * events)

    async def tenant_without_runner(self, name: str) -> Tenant:
        """A further tenant, whose tasks nobody of this load works on."""
        return await tenants.made(self.caller, name, self._mark, agent=False)

    async def execute_commands(self, tenant: Tenant, commands: Sequence[str]) -> str:
        """An execution of one independent task per command; its id."""
        execution = await self.begin_execution(tenant, await self._spec(tenant, commands))
        if execution is None:
            raise AssertionError("the execution did not begin")
        return execution

    async def _spec(self, tenant: Tenant, commands: Sequence[str]) -> str:
        identity = self.history.next_id()
        tasks = "".join(
            f"### T{number}: {identity} step {number}\n- Command: `{command}`\n\n"
            for number, command in enumerate(commands)
        )
        text = f"# {identity} spec\n\n## Tasks\n\n{tasks}"
        body = {"project_id": tenant.project_id, "engine": "plan", "plan": text}
        operation = self.history.begin("spec.create", tenant.name, {"title": f"{identity} spec"}, identity)
        answer = await self.caller.operate(operation, "POST", "/specs", tenant.token, body)
        if not answer.ok:
            raise AssertionError(f"the spec was refused: {answer.status} {answer.document}")
        operation.answer = {"id": answer.document["id"]}
        return str(answer.document["id"])

    async def list_tickets(self) -> dict[str, list[str]]:
        """Tenant → titles of all its tickets, as the public API lists them, page by page."""
        found: dict[str, list[str]] = {}
        for tenant in self.tenants:
            titles: list[str] = []
            while True:
                query = f"project_id={tenant.project_id}&limit={PAGE}&offset={len(titles)}"
                page = await tenants.must(self.caller, "ticket.list", "GET", f"/tickets?{query}", tenant.token, None)
                titles += [ticket["title"] for ticket in page["tickets"]]
                if len(page["tickets"]) < PAGE:
                    break
            found[tenant.name] = titles
        return found

    async def _probe(self) -> None:
        """Every service in turn; a probe that hangs does not hold up the next one."""
        tenant = self.tenants[0]
        given = {
            "project": tenant.project_id,
            "agent": tenant.agent_id,
            "organization": tenant.organization_id,
            "ticket": tenant.tickets[0]["id"],
        }
        asked: set[asyncio.Task[Any]] = set()
        while True:
            for service, path in PROBES.items():
                await asyncio.sleep(PROBE_FAST_S if self._waiting_for_health else PROBE_EVERY_S)
                request = self.caller.request(
                    f"probe.{service}", "GET", path.format(**given), tenant.token, timeout_s=PROBE_TIMEOUT_S
                )
                task = asyncio.create_task(request)
                asked.add(task)
                task.add_done_callback(asked.discard)


def plan(identity: str) -> str:
    """A spec of two tasks, the second after the first."""
    return (
        f"# {identity} spec\n\n## Tasks\n\n### A: {identity} first\n- Command: `true`\n\n"
        f"### B: {identity} second\n- Depends: A\n- Command: `true`\n"
    )
