"""Consumers: each event has one effect, and what fails is repeated, then kept as a dead letter."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from omoios.identity.events.v1.events_pb2 import OrganizationCreated, UserRegistered, UserUpdated
from servicekit import context
from servicekit.db import DATABASE_UNAVAILABLE
from servicekit.events import Consumers, Permanent, deadletters
from servicekit.events.bus import Bus, LeanClient
from servicekit.events.envelope import EVENT_ID, MSG_ID
from servicekit.events.publishing import headers_of, publish
from servicekit.events.relay import _SELECT
from servicekit.ids import new_id

CRASHING = Path(__file__).parent / "crashing_consumer.py"
_INSERT = "INSERT INTO things (id, name) VALUES ($1, $2)"


def accounts(handler: Any = None) -> Consumers:
    group = Consumers("accounts")

    @group.on(UserRegistered)
    async def registered(tx: Any, event: Any) -> None:
        if handler is not None:
            await handler(tx, event)
        await (await tx.connection()).execute(_INSERT, event.id, event.body.user_id)

    return group


async def register(party: Any, *user_ids: str) -> None:
    async with party.db.uow() as tx:
        for user_id in user_ids:
            tx.emit(UserRegistered(user_id=user_id), aggregate_id=user_id, version=1)


async def relay(party: Any) -> None:
    """Bring the outbox to JetStream without a relay."""
    async with party.db.uow() as tx:
        connection = await tx.connection()
        rows = await connection.fetch(_SELECT)
        await connection.execute("UPDATE outbox SET published_at = now() WHERE seq = ANY($1)", [r["seq"] for r in rows])
    await publish(party.bus, rows)


async def names(party: Any) -> list[str]:
    return [row[0] for row in await party.fetch("SELECT name FROM things ORDER BY name")]


async def quiet(kit: Any, durable: str = "billing-accounts-identity") -> bool:
    info = await kit.js.consumer_info("IDENTITY", durable)
    return bool(info.num_pending == 0 and info.num_ack_pending == 0)


@pytest.fixture
async def two(kit: Any) -> tuple[Any, Any]:
    """The emitter and the consumer."""
    return await kit.party("identity"), await kit.party("billing")


async def test_an_event_is_handled_once_with_its_cause_and_its_answer(kit: Any, two: Any) -> None:
    identity, billing = two
    seen: list[Any] = []

    async def handler(tx: Any, event: Any) -> None:
        seen.append((event, context.correlation_id.get(), context.causation_id.get()))
        tx.emit(OrganizationCreated(organization_id="o"), aggregate_id="o", version=1, organization_id="o")

    billing.groups = [accounts(handler)]
    await kit.topology(billing)
    with context.bind(request="req-1"):
        await register(identity, "u-1")
    async with identity.working(), billing.working() as worker:
        await kit.until(lambda: worker.loops[0].bound)
        await kit.until(lambda: names(billing))
        await kit.until(lambda: quiet(kit))
    ((event, correlation, causation),) = seen
    assert (event.type, event.aggregate_type, event.aggregate_id) == ("identity.user.registered.v1", "user", "u-1")
    assert (event.version, event.organization_id, event.correlation_id) == (1, None, "req-1")
    assert (correlation, causation) == ("req-1", event.id)
    rows = await billing.fetch("SELECT subject, correlation_id, causation_id FROM outbox")
    assert rows == [("identity.organization.created.v1", "req-1", event.id)]
    assert await billing.fetch("SELECT event_id::text, consumer FROM inbox") == [
        (event.id, "billing-accounts-identity")
    ]


async def test_a_consumer_that_dies_between_commit_and_ack_has_one_effect(kit: Any, two: Any) -> None:
    identity, billing = two
    billing.groups = [accounts()]
    await kit.topology(billing, ack_wait_s=1.0)
    await register(identity, "u-1")
    await relay(identity)
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CRASHING), billing.target.url, kit.nats_url, env=os.environ
    )
    assert await asyncio.wait_for(process.wait(), 30) == 7
    assert await names(billing) == ["u-1"]
    assert not await quiet(kit)
    async with billing.working():
        await kit.until(lambda: quiet(kit))
    assert await names(billing) == ["u-1"]


async def test_three_deliveries_in_any_order_have_one_effect(kit: Any, two: Any) -> None:
    identity, billing = two
    group = Consumers("accounts")

    @group.on(UserUpdated)
    async def updated(tx: Any, event: Any) -> None:
        # The guard is on the version: what is older than the row changes nothing.
        await (await tx.connection()).execute(
            """INSERT INTO things AS t (id, name, version) VALUES ($1, $2, $3)
               ON CONFLICT (id) DO UPDATE SET name = excluded.name, version = excluded.version
               WHERE t.version < excluded.version""",
            event.aggregate_id,
            event.body.full_name,
            event.version,
        )
        handled.append(event.id)

    handled: list[str] = []
    billing.groups = [group]
    await kit.topology(billing)
    async with identity.db.uow() as tx:
        for user in range(5):
            for version in range(1, 11):
                tx.emit(UserUpdated(full_name=f"{user}-{version}"), aggregate_id=f"u-{user}", version=version)
    async with identity.db.reader() as tx:
        rows = await (await tx.connection()).fetch(_SELECT)
    deliveries = [(row, number) for row in rows for number in range(3)]
    random.Random(3).shuffle(deliveries)

    async def deliver(row: Any, number: int) -> None:
        headers = headers_of(row)
        headers |= {EVENT_ID: headers[MSG_ID], MSG_ID: f"{headers[MSG_ID]}-{number}"}
        await kit.js.publish(row["subject"], row["payload"], headers=headers)

    await asyncio.gather(*(deliver(row, number) for row, number in deliveries))
    async with billing.working():
        await kit.until(lambda: quiet(kit))
    assert sorted(handled) == sorted(str(row["event_id"]) for row in rows)
    assert await billing.fetch("SELECT id, name, version FROM things ORDER BY id") == [
        (f"u-{user}", f"{user}-10", 10) for user in range(5)
    ]


async def test_a_poison_message_becomes_a_dead_letter_and_its_neighbours_go_on(kit: Any, two: Any) -> None:
    identity, billing = two
    broken = True

    async def handler(_tx: Any, event: Any) -> None:
        if broken and event.body.user_id == "u-7":
            raise Permanent("no such account\nat all")
        if broken and event.body.user_id == "u-13":
            raise ValueError("always")

    billing.groups = [accounts(handler)]
    await kit.topology(billing, max_deliver=3)
    await register(identity, *(f"u-{number}" for number in range(20)))
    await relay(identity)
    async with billing.working():
        await kit.until(lambda: quiet(kit))
        assert len(await names(billing)) == 18
        letters = [letter async for letter in deadletters.letters(kit.js)]
        assert {letter.reason for letter in letters} == {
            "no such account at all",
            "gave up after 3 deliveries: ValueError: always",
        }
        assert {letter.durable for letter in letters} == {"billing-accounts-identity"}
        assert {letter.subject for letter in letters} == {"identity.user.registered.v1"}
        broken = False
        for letter in letters:
            await deadletters.replay(kit.js, letter)
        await kit.until(lambda: _count(billing, 20))
        await kit.until(lambda: quiet(kit))
    assert [letter async for letter in deadletters.letters(kit.js)] == []


async def test_a_replay_reaches_only_the_durable_it_is_meant_for(kit: Any, two: Any) -> None:
    identity, billing = two
    other_saw: list[str] = []
    broken = True

    async def fail(_tx: Any, _event: Any) -> None:
        if broken:
            raise Permanent("broken")

    other = Consumers("watch")

    @other.on(UserRegistered)
    async def watched(_tx: Any, event: Any) -> None:
        other_saw.append(event.id)

    billing.groups = [accounts(fail), other]
    await kit.topology(billing)
    await register(identity, "u-1")
    await relay(identity)
    async with billing.working():
        await kit.until(lambda: quiet(kit))
        await kit.until(lambda: quiet(kit, "billing-watch-identity"))
        # Even with its memory of the event gone the other durable does not handle it a second time.
        raw = await billing.db.connect("test")
        await raw.execute("DELETE FROM inbox")
        await raw.close()
        broken = False
        async for letter in deadletters.letters(kit.js):
            await deadletters.replay(kit.js, letter)
        await kit.until(lambda: _count(billing, 1))
        await kit.until(lambda: quiet(kit, "billing-watch-identity"))
    assert len(other_saw) == 1


async def test_a_dead_letter_that_cannot_be_stored_comes_back(kit: Any, two: Any) -> None:
    identity, billing = two

    async def fail(_tx: Any, _event: Any) -> None:
        raise Permanent("broken")

    billing.groups = [accounts(fail)]
    await kit.topology(billing)
    await kit.js.delete_stream("DLQ")
    await register(identity, "u-1")
    await relay(identity)
    async with billing.working():
        await asyncio.sleep(0.5)
        assert not await quiet(kit)
        await kit.topology(billing)
        await kit.until(lambda: quiet(kit))
    assert len([letter async for letter in deadletters.letters(kit.js)]) == 1


async def test_unknown_types_and_bad_envelopes_become_dead_letters(kit: Any, two: Any) -> None:
    identity, billing = two
    seen: list[str] = []
    group = Consumers("watch")

    async def watch(_tx: Any, event: Any) -> None:
        seen.append(type(event.body).__name__)

    group.on_any("identity", watch)
    billing.groups = [group]
    await kit.topology(billing)
    await register(identity, "u-1")
    await relay(identity)
    (message,) = await kit.stored("IDENTITY")
    headers = dict(message.headers)
    await kit.js.publish("identity.moon.landed.v1", b"", headers=headers | {MSG_ID: new_id(), "Omoios-Type": ""})
    await kit.js.publish("identity.user.registered.v1", b"\xff\xff", headers=headers | {MSG_ID: new_id()})
    await kit.js.publish("identity.user.registered.v1", b"", headers={MSG_ID: new_id()})
    await kit.js.publish("identity.user.registered.v1", b"", headers=headers | {MSG_ID: "not a uuid"})
    async with billing.working():
        await kit.until(lambda: quiet(kit, "billing-watch-identity"))
    # A batch that fails is repeated one by one.
    assert set(seen) == {"UserRegistered"}
    reasons = [letter.reason async for letter in deadletters.letters(kit.js)]
    assert len(reasons) == 4
    assert any("unknown event type" in reason for reason in reasons)
    assert any("cannot be parsed" in reason for reason in reasons)
    assert sum("bad envelope" in reason for reason in reasons) == 2


async def test_what_fails_for_a_moment_is_repeated_after_a_pause(kit: Any, two: Any) -> None:
    identity, billing = two
    failures = {"u-1": 2}

    async def handler(_tx: Any, event: Any) -> None:
        if failures.get(event.body.user_id, 0):
            failures[event.body.user_id] -= 1
            raise ConnectionAbortedError("for a moment")

    billing.groups = [accounts(handler)]
    await kit.topology(billing)
    await register(identity, "u-0", "u-1", "u-2")
    await relay(identity)
    async with billing.working():
        await kit.until(lambda: quiet(kit))
    assert await names(billing) == ["u-0", "u-1", "u-2"]
    assert failures == {"u-1": 0}


async def test_while_the_database_is_away_no_delivery_is_used_up(
    kit: Any, two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity, billing = two
    monkeypatch.setattr("servicekit.events.loop.RETRY_S", 0.05)
    outage = 10

    async def handler(_tx: Any, _event: Any) -> None:
        nonlocal outage
        if outage:
            outage -= 1
            raise DATABASE_UNAVAILABLE() from ConnectionRefusedError()

    billing.groups = [accounts(handler)]
    await kit.topology(billing, max_deliver=2)
    await register(identity, "u-1", "u-2")
    await relay(identity)
    async with billing.working():
        await kit.until(lambda: quiet(kit))
    assert await names(billing) == ["u-1", "u-2"]
    assert [letter async for letter in deadletters.letters(kit.js)] == []


async def test_long_work_is_not_delivered_a_second_time(kit: Any, two: Any) -> None:
    identity, billing = two
    starts: list[str] = []

    async def handler(_tx: Any, event: Any) -> None:
        starts.append(event.id)
        await asyncio.sleep(1.6)

    billing.groups = [accounts(handler)]
    await kit.topology(billing, ack_wait_s=0.6)
    await register(identity, "u-1")
    await relay(identity)
    async with billing.working():
        await kit.until(lambda: _count(billing, 1))
        await kit.until(lambda: quiet(kit))
    assert len(starts) == 1


async def test_a_lost_acknowledgement_is_absorbed(kit: Any, two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    identity, billing = two
    lost = 3
    ack = Msg.ack

    async def lossy(message: Msg) -> None:
        nonlocal lost
        if lost:
            lost -= 1
            return
        await ack(message)

    monkeypatch.setattr(Msg, "ack", lossy)
    billing.groups = [accounts()]
    await kit.topology(billing, ack_wait_s=0.5)
    await register(identity, "u-1", "u-2", "u-3")
    await relay(identity)
    async with billing.working():
        await kit.until(lambda: quiet(kit))
    assert lost == 0
    assert await names(billing) == ["u-1", "u-2", "u-3"]


async def test_neighbours_of_one_type_come_as_a_batch(kit: Any, two: Any) -> None:
    identity, billing = two
    sizes: list[int] = []
    group = Consumers("accounts")

    @group.on_batch(UserRegistered)
    async def registered(tx: Any, events: Any) -> None:
        sizes.append(len(events))
        await (await tx.connection()).executemany(_INSERT, [(event.id, event.body.user_id) for event in events])

    billing.groups = [group]
    await kit.topology(billing)
    await register(identity, *(f"u-{number}" for number in range(250)))
    await relay(identity)
    async with billing.working():
        await kit.until(lambda: quiet(kit))
    assert len(await names(billing)) == 250
    assert max(sizes) == 100


async def test_two_instances_share_a_durable(kit: Any, two: Any) -> None:
    identity, billing = two
    other = await kit.party("billing", billing.target)
    billing.groups, other.groups = [accounts()], [accounts()]
    await kit.topology(billing)
    async with identity.working(), billing.working(), other.working():
        for start in range(0, 600, 20):
            await register(identity, *(f"u-{number:03}" for number in range(start, start + 20)))
        await kit.until(lambda: _count(billing, 600))
        await kit.until(lambda: quiet(kit))
    assert await names(billing) == [f"u-{number:03}" for number in range(600)]


async def test_a_consumer_waits_for_its_durable(kit: Any, two: Any) -> None:
    identity, billing = two
    billing.groups = [accounts()]
    await kit.topology()
    await register(identity, "u-1")
    await relay(identity)
    async with billing.working() as worker:
        await asyncio.sleep(0.3)
        assert not worker.ready()
        await kit.topology(billing)
        await kit.until(lambda: _count(billing, 1))
        assert worker.ready()


async def test_a_process_starts_and_is_ready_without_nats(kit: Any, two: Any) -> None:
    _, billing = two
    billing.groups = [accounts()]
    settings = billing.target.settings(nats_url="nats://127.0.0.1:1")
    await billing.bus.close()
    billing.bus = Bus(settings)
    await billing.bus.start()
    async with billing.working() as worker:
        await register(billing, "u-1")
        await asyncio.sleep(0.2)
        assert worker.ready()
        assert await billing.pending() == 1


async def test_live_subscribers_see_events_of_now(kit: Any, two: Any) -> None:
    identity, billing = two
    await kit.topology()
    seen: list[Any] = []
    billing.bus.subscribe_live("identity.>", seen.append)
    await asyncio.sleep(0.05)
    async with identity.working():
        await register(identity, "u-1")
        await kit.until(lambda: seen)
    assert seen[0].body == UserRegistered(user_id="u-1")


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"\r\n",
        b"Nats-Msg-Id: 1\r\nOmoios-Type:x\r\nEmpty:\r\n\r\n",
        b"Tab:\t value with : colons \r\nNo colon\r\n: no name\r\n",
        b"Na me: x\r\n Padded : y\r\nn\xc3\xa4me: z\r\nValue: gr\xc3\xbc\xc3\x9fe \xff\r\n",
    ],
)
def test_headers_are_read_as_the_library_reads_them(block: bytes) -> None:
    expected = Client._parse_header_lines(block)
    expected.pop("", None)
    assert LeanClient._parse_header_lines(block) == expected


async def _count(party: Any, count: int) -> bool:
    return len(await names(party)) == count
