"""The runner: joins, claims tasks for its free slots, and works on them side by side."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping
from typing import Any

from agents_service.engines.service import why_no_bubblewrap
from agents_service.runners import rules
from agents_service.runners.adapters import Api, Gone, Refused, Unreachable, Waiting
from agents_service.runners.attempt_service import AttemptWork
from agents_service.runners.folders_adapters import clear_abandoned, own_folder
from agents_service.runners.settings_adapters import RunnerSettings

_log = logging.getLogger(__name__)

RELEASE_S = 10.0
WAITING_S = 5.0


class Runner:
    """One process with some slots. It keeps nothing that another runner could not take over."""

    def __init__(self, settings: RunnerSettings) -> None:
        self.settings = settings
        self.api = Api(settings)
        self._slots: dict[int, tuple[AttemptWork, asyncio.Task[None]]] = {}
        self._free = asyncio.Event()
        self._heartbeats = 0
        self._interval_s = 10.0
        self._wrapped = False
        self._joining = asyncio.Lock()
        self._former: dict[str, str] = {}

    async def _can_wrap(self) -> bool:
        why: str | None = "OMOIOS_RUNNER_BUBBLEWRAP is off"
        if self.settings.bubblewrap == "auto":
            uid = self.settings.sandbox_uid_base if os.geteuid() == 0 else None
            why = await why_no_bubblewrap(uid, network=self.settings.network)
        if why is not None and not self.settings.network:
            raise Refused(f"commands may not use the network here, and nothing else takes it from them: {why}")
        if why is not None:
            _log.info("sandboxes are not wrapped: %s", why)
        return why is None

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`, then give back what is not done. Raises Refused when the API does not want this runner."""
        await asyncio.to_thread(own_folder, self.settings.workdir)
        await asyncio.to_thread(clear_abandoned, self.settings.workdir)
        self._wrapped = await self._can_wrap()
        claiming = asyncio.create_task(self._claim_forever())
        beating = asyncio.create_task(self._beat_forever())
        stopping = asyncio.create_task(stop.wait())
        try:
            loops: set[asyncio.Future[Any]] = {claiming, beating, stopping}
            done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()
        finally:
            for task in (claiming, beating, stopping):
                task.cancel()
            await asyncio.gather(claiming, beating, stopping, return_exceptions=True)
            await self._leave()
            await self.api.close()

    async def _join(self, lost: str) -> None:
        """A new agent in the place of the `lost` one, if no other loop of this runner was quicker."""
        async with self._joining:
            if self.api.agent_id == lost:
                if lost:
                    _log.warning("agent %s is not known any more; joining anew", lost)
                    former, token = self.api.credentials()
                    self._former[former] = token
                await self._register()

    async def _register(self) -> None:
        attempt = 0
        while True:
            try:
                answer = await self.api.register()
            except Unreachable as error:
                _log.warning("cannot join yet: %s", error)
                await asyncio.sleep(rules.backoff_s(attempt))
                attempt += 1
                continue
            self._heartbeats = 0
            self._interval_s = float(answer["heartbeat_interval_s"])
            _log.info("joined as agent %s", self.api.agent_id)
            return

    async def _claim_forever(self) -> None:
        await self._join("")
        failures = 0
        while True:
            free = [slot for slot in range(self.settings.slots) if slot not in self._slots]
            if not free:
                self._free.clear()
                await self._free.wait()
                continue
            isolation = "bubblewrap" if self._wrapped else "local"
            # With work running a claim waits shortly only, so that a slot that becomes free is offered soon.
            wait_s = self.settings.wait_s if len(free) == self.settings.slots else min(2.0, self.settings.wait_s)
            agent_id = self.api.agent_id
            try:
                answer = await self.api.claim(len(free), wait_s, isolation)
            except Gone:
                await self._join(agent_id)
                continue
            except Waiting as error:
                _log.info("no tasks are given to agent %s now: %s", agent_id, error)
                await asyncio.sleep(min(WAITING_S, self._interval_s))
                continue
            except Unreachable as error:
                _log.warning("cannot claim: %s", error)
                await asyncio.sleep(rules.backoff_s(failures))
                failures += 1
                continue
            for slot, claim in zip(free, answer["claims"], strict=False):
                self._begin(slot, claim)
            for failed in answer["errors"]:
                _log.warning("task %s not started: %s %s", failed["task_id"], failed["code"], failed["detail"])
            failures = failures + 1 if answer["errors"] and not answer["claims"] else 0
            if failures:
                await asyncio.sleep(rules.backoff_s(failures))

    def _begin(self, slot: int, claim: Mapping[str, Any]) -> None:
        _log.info("task %s in slot %d, attempt %d", claim["task"]["id"], slot, claim["attempt"])
        attempt = AttemptWork(self.api, self.settings, claim, slot, wrapped=self._wrapped)
        task = asyncio.create_task(attempt.run())
        self._slots[slot] = (attempt, task)

        def ended(done: asyncio.Task[None]) -> None:
            self._slots.pop(slot, None)
            self._free.set()
            if not done.cancelled() and done.exception() is not None:
                _log.error("attempt %s failed in the runner", attempt.api.sandbox_id, exc_info=done.exception())

        task.add_done_callback(ended)

    async def _beat_forever(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s if self.api.agent_id else 0.2)
            if not self.api.agent_id:
                continue
            agent_id = self.api.agent_id
            self._heartbeats += 1
            tasks = [attempt.task["id"] for attempt, _ in self._slots.values()]
            try:
                await self.api.heartbeat(self._heartbeats, "RUNNING" if tasks else "IDLE", tasks[0] if tasks else None)
            except Gone:
                await self._join(agent_id)
            except Waiting as error:
                _log.info("%s", error)
            except Unreachable as error:
                _log.warning("heartbeat: %s", error)
            await self._retire(self._former)

    async def _leave(self) -> None:
        running = list(self._slots.values())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_S):
                await asyncio.gather(*(attempt.release() for attempt, _ in running), return_exceptions=True)
                if running:
                    await asyncio.wait([task for _, task in running])
        for _, task in running:
            task.cancel()
        await asyncio.gather(*(task for _, task in running), return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_S):
                own = [self.api.credentials()] if self.api.agent_id else []
                await self._retire(dict([*self._former.items(), *own]))

    async def _retire(self, agents: Mapping[str, str]) -> None:
        """Take the agents out of service that have no work in hand: what is silent without a word raises an alert."""
        busy = {attempt.agent_id for attempt, _ in self._slots.values()}
        for agent_id, token in list(agents.items()):
            if agent_id in busy:
                continue
            try:
                await self.api.retire(agent_id, token)
            except Unreachable as error:
                _log.warning("agent %s: %s", agent_id, error)
            else:
                self._former.pop(agent_id, None)
