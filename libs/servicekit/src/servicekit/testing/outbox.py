"""Lets everything that was committed arrive: outbox → JetStream → consumers, until nothing moves any more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from servicekit.clock import monotonic_s
from servicekit.db import Database
from servicekit.events.bus import Bus
from servicekit.events.topology import plan_of
from servicekit.events.worker import EventWorker, consumers_of
from servicekit.host import Service
from servicekit.settings import ServiceSettings
from servicekit.testing.brokers import apply_topology

_PENDING = "SELECT count(*) FROM outbox WHERE published_at IS NULL"
_LOOK_S = 0.01


class OutboxRunner:
    """`await outbox_runner(service, …)` runs the services' real relays and consumers until all of them are quiet."""

    def __init__(self, nats_url: str) -> None:
        self._nats_url = nats_url

    async def __call__(self, *services: Service, timeout_s: float = 15.0) -> None:
        """Run until every outbox is empty and no durable waits for anything.

        Raises `AssertionError` naming what is left after `timeout_s`. The topology of these services is made first.
        """
        await apply_topology(self._nats_url, plan_of(services))
        workers = [EventWorker(service) for service in services]
        bus = Bus(ServiceSettings(env="test", nats_url=self._nats_url))
        await bus.start()
        await bus.wait_connected(5)
        try:
            for worker in workers:
                await worker.start()
            deadline = monotonic_s() + timeout_s
            quiet = 0
            while quiet < 2:
                left = await _left(bus, services)
                quiet = 0 if left else quiet + 1
                if left and monotonic_s() > deadline:
                    raise AssertionError(f"after {timeout_s:g} s there is still: {', '.join(left)}")
                await asyncio.sleep(_LOOK_S)
        finally:
            for worker in workers:
                await worker.close()
            await bus.close()

    async def close(self) -> None:
        """Nothing is left to end."""


async def _left(bus: Bus, services: Sequence[Service]) -> list[str]:
    found: list[str] = []
    for service in services:
        if isinstance(service.db, Database):
            async with service.db.reader() as tx:
                pending = await (await tx.connection()).fetchval(_PENDING)
            if pending:
                found.append(f"{pending} in the outbox of {service.name}")
    for service in services:
        for group in consumers_of(service):
            for source in group.sources.values():
                durable = group.durable(service.name, source)
                info = await bus.js.consumer_info(source.stream, durable)
                if info.num_pending or info.num_ack_pending:
                    found.append(f"{info.num_pending} + {info.num_ack_pending} for {durable}")
    return found
