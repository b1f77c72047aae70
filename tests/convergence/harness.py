"""Delivers the events of a scenario to the real consumers of one service, and reads what became of its tables.

Real NATS, the real loops, a fresh database for each delivery. What is compared are all rows of all tables of the
service but the inbox; columns that no two runs can have in common are left out: identity columns, columns that
default to the database's clock, and those that the scenario names.
"""

from __future__ import annotations

import asyncio
import importlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from google.protobuf.message import Message
from nats.js import JetStreamContext

from servicekit.clock import monotonic_s, to_wire
from servicekit.db import Database
from servicekit.db.event_options import event_type
from servicekit.events import Bus, Consumers
from servicekit.events.envelope import (
    AGGREGATE_ID,
    AGGREGATE_TYPE,
    EVENT_ID,
    MSG_ID,
    ORGANIZATION,
    TIME,
    TYPE,
    VERSION,
)
from servicekit.events.loop import ConsumerLoop
from servicekit.events.registry import SERVICES
from servicekit.events.topology import Durable, Plan, apply, plan_of
from servicekit.events.worker import consumers_of
from servicekit.host import Service
from servicekit.settings import ServiceSettings
from servicekit.testing.postgres import Databases, TestDatabase

ORG = "org-1"
BEGIN = datetime(2026, 11, 23, 10, tzinfo=UTC)
ACK_WAIT_S = 0.4
BACKWARDS = 0
QUIET_S = 20.0
_NAMES = UUID("0192f0c1-0000-7000-8000-000000000000")
_LEFT_OUT = ("alembic_version", "inbox", "outbox", "stream_readers")


@dataclass(frozen=True)
class Fact:
    """One event as its emitter would say it."""

    body: Message
    aggregate_id: str
    version: int = 1
    organization_id: str | None = ORG

    @property
    def subject(self) -> str:
        """Subject and type."""
        return event_type(type(self.body)).subject


@dataclass(frozen=True)
class Scenario:
    """What one consumer is told, in the order in which it happened, and how its state is compared.

    `seed`: SQL that prepares the database. `made`: columns by table that the handlers make anew in each run (ids,
    times of handling); no run is compared by them. `path`: columns by table that tell by which way the state was
    reached, such as a version that counts changes; other orders are not compared by them, and `why` says why that is
    right. `only`: conditions by table on the rows that other orders are compared by, with the same reason.
    """

    facts: Sequence[Fact]
    seed: str = ""
    made: Mapping[str, Sequence[str]] = field(default_factory=dict)
    path: Mapping[str, Sequence[str]] = field(default_factory=dict)
    only: Mapping[str, str] = field(default_factory=dict)
    why: str = ""


Tables = Mapping[str, Counter[str]]
"""Rows by table."""


@dataclass(frozen=True)
class Outcome:
    """What a delivery led to.

    `before`: the tables without it. `settled`: what other orders are compared by. `said`: subject, aggregate and
    version of what left by the outbox. `dead`: subjects of dead letters.
    """

    before: Tables
    tables: Tables
    settled: Tables
    said: Counter[tuple[str, str, int]]
    crashes: int
    dead: Sequence[str]


class Crashed(BaseException):
    """The process ends here: nothing after it runs."""


class CrashingLoop(ConsumerLoop):
    """Dies after its first commit, before it acknowledges anything."""

    crashed = False

    async def _commit(self, deliveries: Any) -> int:
        await super()._commit(deliveries)
        self.crashed = True
        raise Crashed


class Convergence:
    """`await convergence.run("billing", "ledger", scenario, …)` delivers once and gives the state that results."""

    def __init__(self, databases: Databases, nats_url: str, directory: Path) -> None:
        self._databases = databases
        self._nats_url = nats_url
        self._directory = directory
        self._runs = 0
        self._applied: set[str] = set()

    async def run(
        self,
        service: str,
        consumer: str,
        scenario: Scenario,
        *,
        times: int = 1,
        order: int | None = None,
        crash: bool = False,
    ) -> Outcome:
        """Deliver every fact `times` times until it is acknowledged: in order, backwards or by the seed `order`.

        With `crash` the first process of each stream ends between commit and acknowledgement; another takes over.
        """
        self._runs += 1
        target = self._databases(service)
        async with self._service(service, target) as (built, database, bus):
            group = next(one for one in consumers_of(built) if one.name == consumer)
            await self._topology(built, group, bus.js)
            if scenario.seed:
                async with database.uow() as tx:
                    await (await tx.connection()).execute(scenario.seed)
            before, _ = await _state(database, scenario)
            deliveries = [fact for fact in enumerate(scenario.facts) for _ in range(times)]
            if order == BACKWARDS:
                deliveries.reverse()
            elif order is not None:
                random.Random(order).shuffle(deliveries)
            await self._publish(bus, deliveries)
            crashes = await _consume(built, group, database, bus, crash)
            tables, said = await _state(database, scenario)
            settled, _ = await _state(database, scenario, settled=True)
            letters = await bus.js.stream_info("DLQ", subjects_filter=">")
            return Outcome(before, tables, settled, said, crashes, sorted(letters.state.subjects or {}))

    @asynccontextmanager
    async def _service(self, name: str, target: TestDatabase) -> AsyncIterator[tuple[Service, Database, Bus]]:
        settings = importlib.import_module(f"{name}_service.settings").Settings(
            env="test",
            database_url=target.url,
            database_pool_size=5,
            nats_url=self._nats_url,
            # Handlers call nobody.
            redis_url="redis://127.0.0.1:1/0",
            rpc_targets=dict.fromkeys(SERVICES, "127.0.0.1:1"),
            service_secret="none",
            envelope_key="A" * 43 + "=",
            data_dir=self._directory,
        )
        built: Service = importlib.import_module(f"{name}_service.main").build(settings)
        database: Any = built.db
        bus = Bus(ServiceSettings(env="test", nats_url=self._nats_url))
        await bus.start()
        await bus.wait_connected(10)
        try:
            yield built, database, bus
        finally:
            await bus.close()
            await database.close()

    async def _topology(self, service: Service, group: Consumers, js: JetStreamContext) -> None:
        """Streams and durables of this group, empty."""
        name = f"{service.name}-{group.name}"
        wanted = {source.stream: source for source in group.sources.values()}
        if name not in self._applied:
            self._applied.add(name)
            streams = {
                stream: replace(
                    plan,
                    max_bytes=64 * 1024**2,
                    durables={
                        group.durable(service.name, wanted[stream]): Durable(
                            filter_subjects=wanted[stream].subjects, backoff_s=[0.05], ack_wait_s=ACK_WAIT_S
                        )
                    }
                    if stream in wanted
                    else {},
                )
                for stream, plan in plan_of([]).streams.items()
                if stream in wanted or stream == "DLQ"
            }
            await apply(js, Plan(streams))
            return
        for stream in (*wanted, "DLQ"):
            await js.purge_stream(stream)

    async def _publish(self, bus: Bus, deliveries: Iterable[tuple[int, Fact]]) -> None:
        messages = []
        for number, (place, fact) in enumerate(deliveries):
            kind = event_type(type(fact.body))
            headers = {
                MSG_ID: f"{self._runs}-{number}",
                EVENT_ID: str(uuid5(_NAMES, str(place))),
                TYPE: kind.subject,
                TIME: to_wire(BEGIN + timedelta(seconds=place)),
                AGGREGATE_TYPE: kind.aggregate,
                AGGREGATE_ID: fact.aggregate_id,
                VERSION: str(fact.version),
            }
            if fact.organization_id is not None:
                headers[ORGANIZATION] = fact.organization_id
            messages.append(bus.js.publish(kind.subject, fact.body.SerializeToString(), headers=headers))
        await asyncio.gather(*messages)


async def _consume(service: Service, group: Consumers, database: Database, bus: Bus, crash: bool) -> int:
    """Let the consumer handle all that waits for it; returns how many processes died on the way."""
    sources = [(source, group.durable(service.name, source)) for source in group.sources.values()]
    dying = [CrashingLoop(bus, database, source, durable) for source, durable in sources] if crash else []
    await asyncio.gather(*(asyncio.wait_for(_died(loop), QUIET_S) for loop in dying))
    loops = [ConsumerLoop(bus, database, source, durable) for source, durable in sources]
    tasks = [asyncio.create_task(loop.run()) for loop in loops]
    try:
        deadline = monotonic_s() + QUIET_S
        for source, durable in sources:
            while True:
                info = await bus.js.consumer_info(source.stream, durable)
                if not info.num_pending and not info.num_ack_pending:
                    break
                assert monotonic_s() < deadline, f"{durable} still has {info.num_pending} + {info.num_ack_pending}"
                await asyncio.sleep(0.01)
    finally:
        for loop, task in zip(loops, tasks, strict=True):
            loop.stop(task)
        await asyncio.gather(*tasks, return_exceptions=True)
    return len(dying)


async def _died(loop: CrashingLoop) -> None:
    try:
        await loop.run()
    except Crashed:
        return
    raise AssertionError("the loop ended without a crash")


# Times that a row gets from the database's clock and numbers that it gets from a sequence tell when and in which
# order it was written, nothing else.
_COLUMNS = """
SELECT c.relname AS name,
    array_remove(array_agg(CASE WHEN a.attidentity <> '' OR pg_get_expr(d.adbin, d.adrelid) ~ '(now|clock_timestamp)\\('
        THEN a.attname::text END), NULL) AS processing
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND NOT c.relname = ANY ($1)
GROUP BY c.relname ORDER BY c.relname
"""


async def _state(
    database: Database, scenario: Scenario, *, settled: bool = False
) -> tuple[Tables, Counter[tuple[str, str, int]]]:
    async with database.reader(snapshot=True) as tx:
        connection = await tx.connection()
        tables: dict[str, Counter[str]] = {}
        for table, processing in await connection.fetch(_COLUMNS, list(_LEFT_OUT)):
            left_out, condition = [*processing, *scenario.made.get(table, ())], "true"
            if settled:
                left_out += scenario.path.get(table, ())
                condition = scenario.only.get(table, "true")
            rows = await connection.fetch(
                f'SELECT (to_jsonb(t) - $1::text[])::text FROM "{table}" t WHERE {condition}', left_out
            )
            tables[table] = Counter(row[0] for row in rows)
        said = await connection.fetch("SELECT subject, aggregate_type, version FROM outbox")
    return tables, Counter((row[0], row[1], row[2]) for row in said)


def difference(expected: Tables, found: Tables) -> str:
    """The rows that only one of two states has; empty where they are the same."""
    lines = []
    for table in sorted({*expected, *found}):
        before, after = expected.get(table, Counter()), found.get(table, Counter())
        lines += [f"only in order:  {table} {row}" for row in (before - after).elements()]
        lines += [f"only otherwise: {table} {row}" for row in (after - before).elements()]
    return "\n".join(lines)
