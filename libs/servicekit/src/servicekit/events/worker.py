"""Relay and consumers of a service, as a part of its process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import structlog

from servicekit.db import Database
from servicekit.events.bus import Bus
from servicekit.events.consumers import Consumers
from servicekit.events.loop import ConsumerLoop
from servicekit.events.relay import Relay
from servicekit.tasks import cancel

if TYPE_CHECKING:
    from servicekit.events.resources import Resources
    from servicekit.host import Service

_log = structlog.get_logger(__name__)


def consumers_of(service: Service) -> list[Consumers]:
    """Return the service's consumers and the kit's own: identity's facts, and resource → organization."""
    found: list[Consumers] = list(service.consumers)
    if service.name != "identity":
        from servicekit.auth.replica import consumers as access_consumers

        found.append(access_consumers())
    if service.resources is not None:
        found.append(cast("Resources", service.resources).consumers(service.name))
    names = [group.name for group in found]
    if len(set(names)) != len(names):
        raise ValueError(f"{service.name} has two groups of consumers of one name: {sorted(names)}")
    return found


class EventWorker:
    """Starts the relay and one loop for each durable; closing lets running batches end within the grace period."""

    def __init__(self, service: Service, groups: Sequence[Consumers] | None = None) -> None:
        if service.db is None:
            raise ValueError(f"{service.name} has no database")
        self._service = service
        self._database = cast("Database", service.db)
        self._own_bus = service.bus is None
        self._bus = Bus(service.settings) if service.bus is None else cast("Bus", service.bus)
        self.relay = Relay(self._database, self._bus, service.name)
        self.loops = [
            ConsumerLoop(self._bus, self._database, source, group.durable(service.name, source))
            for group in (consumers_of(service) if groups is None else groups)
            for source in group.sources.values()
        ]
        self._relay_task: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start; neither NATS nor the durables need to be there yet."""
        if self._own_bus:
            await self._bus.start()
        self._relay_task = asyncio.create_task(self.relay.run(), name="relay")
        self._tasks = [asyncio.create_task(loop.run(), name="consumer") for loop in self.loops]

    def ready(self) -> bool:
        """Whether the consumers are bound. Without NATS the process is ready, too: the outbox holds what it says."""
        return not self._bus.is_connected or all(loop.bound for loop in self.loops)

    async def close(self) -> None:
        """Stop consuming, then relaying."""
        for loop, task in zip(self.loops, self._tasks, strict=False):
            loop.stop(task)
        await _finish(self._tasks, self._service.settings.shutdown_grace_s)
        if self._relay_task is not None:
            await _finish([self._relay_task], 0)
        self._tasks, self._relay_task = [], None
        if self._own_bus:
            await self._bus.close()


async def _finish(tasks: Sequence[asyncio.Task[Any]], grace_s: float) -> None:
    if not tasks:
        return
    await asyncio.wait(tasks, timeout=grace_s)
    await cancel(tasks)
