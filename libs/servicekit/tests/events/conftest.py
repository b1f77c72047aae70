from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig

from omoios_local.embedded.nats import EmbeddedNats
from servicekit.auth.access import AccessTable
from servicekit.clock import monotonic_s
from servicekit.db import Database
from servicekit.events import Bus, Consumers
from servicekit.events.topology import Durable, Plan, apply, plan_of
from servicekit.events.worker import EventWorker
from servicekit.host import Service
from servicekit.testing.postgres import Databases, TestDatabase

MIGRATIONS = Path(__file__).parent.parent / "db" / "migrations_fixture"


async def until(condition: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    """Wait for a condition (a function or coroutine function) and return its truthy value."""
    deadline = monotonic_s() + timeout_s
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert monotonic_s() < deadline, f"{condition} did not become true within {timeout_s} s"
        await asyncio.sleep(0.01)


@dataclass
class Party:
    """A service of these tests: its database and its connection to NATS."""

    name: str
    target: TestDatabase
    db: Database
    bus: Bus
    groups: list[Consumers] = field(default_factory=list)
    until = staticmethod(until)

    @property
    def service(self) -> Service:
        settings = self.target.settings(nats_url=self.bus._settings.nats_url, shutdown_grace_s=5)
        return Service(
            name=self.name,
            settings=settings,
            access=AccessTable(operations={}, rpcs={}),
            db=self.db,
            bus=self.bus,
            consumers=self.groups,
        )

    @asynccontextmanager
    async def working(self) -> AsyncIterator[EventWorker]:
        worker = EventWorker(self.service, self.groups)
        await worker.start()
        try:
            yield worker
        finally:
            await worker.close()

    async def pending(self) -> int:
        async with self.db.reader() as tx:
            return int(await (await tx.connection()).fetchval("SELECT count(*) FROM outbox WHERE published_at IS NULL"))

    async def fetch(self, statement: str, *args: Any) -> list[Any]:
        async with self.db.reader() as tx:
            return [tuple(row) for row in await (await tx.connection()).fetch(statement, *args)]


class EventKit:
    """What the tests of events share; `await kit.party("identity")` makes a service with a database of its own."""

    until = staticmethod(until)

    def __init__(self, databases: Databases, nats_url: str) -> None:
        self._databases = databases
        self.nats_url = nats_url
        self._made: list[Party] = []

    @property
    def js(self) -> JetStreamContext:
        return self._made[0].bus.js

    async def party(self, name: str, target: TestDatabase | None = None) -> Party:
        # The template is the kit's; the party's name only decides its streams and durables.
        target = target or self._databases("kit", migrations=MIGRATIONS)
        settings = target.settings(nats_url=self.nats_url)
        bus = Bus(settings)
        await bus.start()
        party = Party(name, target, Database(settings), bus)
        self._made.append(party)
        await bus.wait_connected(5)
        return party

    async def close(self) -> None:
        for party in self._made:
            await party.bus.close()
            await party.db.close()

    async def topology(self, *made: Party, **limits: Any) -> Plan:
        """Apply the plan of these parties' own groups; `limits` replace those of each durable."""
        defaults = {"backoff_s": [0.05]} | limits
        streams = dict(plan_of([]).streams)
        for name, stream in list(streams.items()):
            durables = {
                group.durable(party.name, source): Durable(filter_subjects=source.subjects, **defaults)
                for party in made
                for group in party.groups
                for source in group.sources.values()
                if source.stream == name
            }
            streams[name] = replace(stream, max_bytes=64 * 1024**2, durables=durables)
        plan = Plan(streams)
        await apply(self.js, plan)
        return plan

    async def stored(self, stream: str) -> list[Any]:
        """Every message of a stream, in its order."""
        found: list[Any] = []
        total = (await self.js.stream_info(stream)).state.messages
        reader = await self.js.pull_subscribe("", stream=stream, config=ConsumerConfig(ack_policy=AckPolicy.NONE))
        while len(found) < total:
            found += await reader.fetch(1000, timeout=5)
        await reader.unsubscribe()
        return found

    async def stored_ids(self, stream: str) -> list[str]:
        """The aggregate ids of a stream's messages, in their order."""
        return [message.headers["Omoios-Aggregate-Id"] for message in await self.stored(stream)]


@pytest.fixture
async def kit(database: Databases, nats_server: EmbeddedNats) -> AsyncIterator[EventKit]:
    made = EventKit(database, nats_server.url)
    yield made
    await made.close()
