"""A runner that only pretends to work: it claims, reports events and usage, and completes, over the public API."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from typing import Any

from servicekit.ids import new_id
from tests.faults import tenant as tenants
from tests.faults.caller import Caller
from tests.faults.tenant import Tenant

CLAIM_MAX = 4
CLAIM_WAIT_S = 2.0
AT_ONCE = 6
BEAT_EVERY_S = 8.0


class FakeRunner:
    """Works on the tasks of one tenant until it is cancelled."""

    def __init__(self, caller: Caller, tenant: Tenant, seed: int) -> None:
        self._caller = caller
        self._tenant = tenant
        self._rng = random.Random(f"{seed}-runner")
        self._work: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        beats = asyncio.create_task(self._beat())
        try:
            while True:
                await asyncio.sleep(self._rng.uniform(0.2, 0.6))
                if len(self._work) < AT_ONCE:
                    await self._claim()
                else:
                    self._tenant.backlogged = True
        finally:
            beats.cancel()
            for task in list(self._work):
                task.cancel()
            await asyncio.gather(*self._work, return_exceptions=True)

    async def _beat(self) -> None:
        """Say that the agent lives; what is not answered is said again next time."""
        for number in itertools.count(1):
            tenant = self._tenant
            body = {"agent_id": tenant.agent_id, "sequence_number": number, "status": "RUNNING"}
            path = f"/agents/{tenant.agent_id}/heartbeat"
            await self._caller.request("agent.heartbeat", "POST", path, tenant.agent_token, body)
            await asyncio.sleep(BEAT_EVERY_S)

    async def _claim(self) -> None:
        tenant, history = self._tenant, self._caller.history
        operation = history.begin("task.claim", tenant.name, {"max": CLAIM_MAX})
        path = f"/agents/{tenant.agent_id}/claim"
        body = {"max": CLAIM_MAX, "wait_s": CLAIM_WAIT_S}
        answer = await self._caller.operate(
            operation, "POST", path, tenant.agent_token, body, keyed=False, patient=False
        )
        if answer.status in (401, 403, 404, 410):
            with contextlib.suppress(tenants.SetUpFailed):
                await tenants.join(self._caller, tenant)
        if not answer.ok:
            await asyncio.sleep(0.5)
            return
        claims = answer.document["claims"]
        tenant.backlogged = len(claims) == CLAIM_MAX
        operation.answer = {
            "claims": [
                {"task": item["task"]["id"], "attempt": item["attempt"], "sandbox": item["sandbox"]["id"]}
                for item in claims
            ]
        }
        for item in claims:
            task = asyncio.create_task(self._attempt(item))
            self._work.add(task)
            task.add_done_callback(self._work.discard)

    async def _attempt(self, claim: dict[str, Any]) -> None:
        """One attempt: every step is repeated until it is answered; the first refusal ends it."""
        sandbox, token, rng = claim["sandbox"]["id"], claim["sandbox"]["token"], self._rng
        await asyncio.sleep(rng.uniform(0.0, 0.3))
        events = [_event(rng) for _ in range(4)]
        single = {"sandbox": sandbox, "events": [events[0]["event_id"]]}
        if not await self._do("sandbox.event", sandbox, "/events", token, events[0], single):
            return
        batch = {"sandbox": sandbox, "events": [event["event_id"] for event in events[1:]]}
        if not await self._do("sandbox.events", sandbox, "/events/batch", token, {"events": events[1:]}, batch):
            return
        if not await self._do("sandbox.heartbeat", sandbox, "/heartbeat", token, {"status": "running"}, {}):
            return
        usage = {
            "usage_id": new_id(),
            "provider": "openai",
            "model": "gpt-4o-mini",
            "input_tokens": rng.randint(1_000, 50_000),
            "output_tokens": rng.randint(100, 5_000),
        }
        if not await self._do("usage.report", sandbox, "/usage", token, {"entries": [usage]}, usage):
            return
        done = {"task_id": claim["task"]["id"], "success": True, "result": {"sandbox": sandbox}}
        asked = {"task": claim["task"]["id"], "attempt": claim["attempt"], "sandbox": sandbox}
        await self._do("task.complete", sandbox, "/task-complete", token, done, asked)

    async def _do(self, kind: str, sandbox: str, path: str, token: str, body: Any, asked: dict[str, Any]) -> bool:
        operation = self._caller.history.begin(kind, self._tenant.name, asked)
        # These carry their own identities: event ids, a usage id, the attempt.
        answer = await self._caller.operate(operation, "POST", f"/sandboxes/{sandbox}{path}", token, body, keyed=False)
        return answer.ok


def _event(rng: random.Random) -> dict[str, Any]:
    return {
        "event_type": "agent.output",
        "event_data": {"line": "x" * rng.randint(1, 200)},
        "source": "agent",
        "event_id": new_id(),
    }
