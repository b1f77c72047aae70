"""The relay: everything committed reaches JetStream, in order, at least once, by one leader."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from nats.js.errors import NotFoundError
from nats.js.manager import JetStreamManager

from omoios.identity.events.v1.events_pb2 import UserRegistered
from omoios_local.embedded.nats import EmbeddedNats
from omoios_local.embedded.process import free_port
from servicekit.clock import utc_now
from servicekit.events.publishing import MAX_BATCH_BYTES, publish
from servicekit.events.relay import _SELECT, Relay, unpublish

LEADER = Path(__file__).parent / "leading_relay.py"


async def register(party: Any, *user_ids: str) -> None:
    async with party.db.uow() as tx:
        for user_id in user_ids:
            tx.emit(UserRegistered(user_id=user_id), aggregate_id=user_id, version=1)


async def unpublished(party: Any) -> list[Any]:
    async with party.db.reader() as tx:
        return list(await (await tx.connection()).fetch(_SELECT))


async def test_events_arrive_in_order_with_their_headers(kit: Any) -> None:
    identity = await kit.party("identity")
    await kit.topology()
    names = [f"u-{number}" for number in range(1200)]
    async with identity.working():
        await register(identity, *names)
        await kit.until(lambda: _is_empty(identity))
    assert await kit.stored_ids("IDENTITY") == names
    message = (await kit.stored("IDENTITY"))[0]
    row = (await identity.fetch("SELECT event_id::text, subject FROM outbox ORDER BY seq LIMIT 1"))[0]
    assert message.subject == row[1] == "identity.user.registered.v1"
    assert message.headers["Nats-Msg-Id"] == row[0]
    assert message.headers["Omoios-Type"] == row[1]
    assert message.headers["Omoios-Version"] == "1"
    assert UserRegistered.FromString(message.data).user_id == "u-0"


async def test_a_batch_of_large_events_is_bounded_in_bytes(kit: Any) -> None:
    identity = await kit.party("identity")
    await kit.topology()
    names = [f"u-{number}" for number in range(12)]
    async with identity.db.uow() as tx:
        for name in names:
            tx.emit(UserRegistered(user_id=name, email="x" * 900_000), aggregate_id=name, version=1)
    size = sum(len(row["payload"]) for row in await unpublished(identity))
    assert MAX_BATCH_BYTES <= size < MAX_BATCH_BYTES + 1_000_000
    async with identity.working():
        await kit.until(lambda: _is_empty(identity))
    assert await kit.stored_ids("IDENTITY") == names


async def test_late_commits_of_concurrent_writers_are_not_skipped(kit: Any) -> None:
    identity = await kit.party("identity")
    await kit.topology()
    randomness = random.Random(7)

    async def write(writer: int) -> None:
        for version in range(1, 31):
            raw = await identity.db.connect("writer") if version == 1 else connections[writer]
            connections[writer] = raw
            async with raw.transaction():
                await raw.execute("SELECT pg_advisory_xact_lock(1000 + $1)", writer % 4)
                await raw.execute(
                    """INSERT INTO outbox
                           (event_id, subject, aggregate_type, aggregate_id, version, occurred_at, payload)
                       VALUES (gen_random_uuid(), 'identity.user.updated.v1', 'user', $1, $2, now(), '')""",
                    f"w-{writer}",
                    version,
                )
                # Committed later than rows with higher sequence numbers.
                await asyncio.sleep(randomness.random() * 0.01)

    connections: dict[int, Any] = {}
    async with identity.working():
        await asyncio.gather(*(write(number) for number in range(8)))
        await kit.until(lambda: _is_empty(identity))
    for connection in connections.values():
        await connection.close()
    messages = await kit.stored("IDENTITY")
    assert len(messages) == 8 * 30
    for writer in range(8):
        versions = [
            int(m.headers["Omoios-Version"]) for m in messages if m.headers["Omoios-Aggregate-Id"] == f"w-{writer}"
        ]
        assert versions == list(range(1, 31))


async def test_of_two_relays_one_leads_and_the_other_takes_over(kit: Any) -> None:
    first = await kit.party("identity")
    second = await kit.party("identity", first.target)
    await kit.topology()
    async with second.working() as standby:
        async with first.working() as leader:
            await kit.until(lambda: leader.relay.leads or standby.relay.leads)
            assert leader.relay.leads != standby.relay.leads
            await register(first, "a", "b")
            await kit.until(lambda: _is_empty(first))
            other = standby if leader.relay.leads else leader
            await asyncio.sleep(1.2)
            assert not other.relay.leads
        await kit.until(lambda: standby.relay.leads)
        await register(first, "c")
        await kit.until(lambda: _is_empty(first))
    assert await kit.stored_ids("IDENTITY") == ["a", "b", "c"]


async def test_a_relay_killed_between_ack_and_mark_loses_and_blocks_nothing(kit: Any) -> None:
    identity = await kit.party("identity")
    await kit.topology()
    await register(identity, *(f"u-{number}" for number in range(20)))
    rows = await unpublished(identity)
    # What a relay did before it died: JetStream has ten of them, and no row is marked.
    await publish(identity.bus, rows[5:15])
    assert len(await unpublished(identity)) == 20
    async with identity.working():
        await kit.until(lambda: _is_empty(identity))
        await register(identity, "next")
        await kit.until(lambda: _is_empty(identity))
    arrived = await kit.stored_ids("IDENTITY")
    assert len(arrived) == 21
    assert sorted(arrived) == sorted([*(f"u-{number}" for number in range(20)), "next"])


async def test_a_frozen_leader_is_replaced_and_does_no_harm_when_it_wakes(kit: Any) -> None:
    identity = await kit.party("identity")
    await kit.topology()
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(LEADER), identity.target.url, kit.nats_url, env=os.environ, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            # Its log comes on the same stream.
            while await process.stdout.readline() != b"leads\n":
                assert process.returncode is None
        await register(identity, "before")
        await kit.until(lambda: _is_empty(identity))
        process.send_signal(signal.SIGSTOP)
        await register(identity, "frozen-1", "frozen-2")
        relay = Relay(identity.db, identity.bus, "identity")
        task = asyncio.create_task(relay.run())
        await kit.until(lambda: _is_empty(identity), timeout_s=20)
        assert relay.leads
        process.send_signal(signal.SIGCONT)
        await register(identity, "after")
        await kit.until(lambda: _is_empty(identity))
        await asyncio.sleep(0.3)
        assert relay.leads
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    finally:
        process.kill()
        await process.wait()
    assert await kit.stored_ids("IDENTITY") == ["before", "frozen-1", "frozen-2", "after"]


async def test_an_event_that_no_stream_takes_yet_waits_and_then_goes(kit: Any) -> None:
    identity = await kit.party("identity")
    async with identity.working():
        await register(identity, "early")
        await asyncio.sleep(0.7)
        assert await identity.pending() == 1
        await kit.topology()
        await kit.until(lambda: _is_empty(identity))
    assert await kit.stored_ids("IDENTITY") == ["early"]


async def test_a_commit_wakes_the_leader_at_once(kit: Any, monkeypatch: Any) -> None:
    # With a poll of a minute only the hints can be what brings the events.
    monkeypatch.setattr("servicekit.events.relay.POLL_S", 60.0)
    leader = await kit.party("identity")
    other = await kit.party("identity", leader.target)
    await kit.topology()
    async with leader.working() as worker:
        await kit.until(lambda: worker.relay.leads)
        await register(leader, "same-process")
        await kit.until(lambda: _is_empty(leader), timeout_s=3)
        await register(other, "notified")
        await kit.until(lambda: _is_empty(leader), timeout_s=3)


async def test_jetstream_wiped_is_filled_again_from_the_outbox(kit: Any, test_run: Any) -> None:
    server = EmbeddedNats(test_run.directory / "nats-wiped", free_port(), sync_always=False)
    server.start()
    test_run.record("nats-wiped", server.pid)
    kit.nats_url = server.url
    try:
        identity = await kit.party("identity")
        await kit.topology()
        names = [f"u-{number}" for number in range(700)]
        async with identity.working():
            await register(identity, *names)
            await kit.until(lambda: _is_empty(identity))
            # As if it had been long ago, so that the new stream is younger than the last acknowledgement.
            raw = await identity.db.connect("clock")
            await raw.execute("UPDATE outbox SET published_at = published_at - interval '1 minute'")
            await raw.close()
            server.stop()
            shutil.rmtree(server.directory / "data")
            await kit.until(lambda: not identity.bus.is_connected)
            server.start()
            await identity.bus.wait_connected(10)
            await kit.topology()
            await register(identity, "new")
            await kit.until(lambda: _has(kit, 701), timeout_s=15)
        assert await kit.stored_ids("IDENTITY") == [*names, "new"]
    finally:
        server.stop()
        test_run.forget("nats-wiped")


async def test_unpublish_walks_all_that_is_old_and_leaves_the_rest(kit: Any) -> None:
    identity = await kit.party("identity")
    raw = await identity.db.connect("test")
    await raw.execute(
        """INSERT INTO outbox (event_id, subject, aggregate_type, aggregate_id, version, occurred_at, payload,
               published_at)
           SELECT gen_random_uuid(), 's', 'a', n::text, 1, now(), '',
               now() - CASE WHEN n <= 25000 THEN interval '2 hours' ELSE interval '0' END
           FROM generate_series(1, 26000) AS n"""
    )
    assert await unpublish(raw, utc_now() - timedelta(hours=1)) == 25000
    assert await raw.fetchval("SELECT count(*) FROM outbox WHERE published_at IS NULL") == 25000
    await raw.close()


async def _is_empty(party: Any) -> bool:
    return bool(await party.pending() == 0)


async def _has(kit: Any, count: int) -> bool:
    try:
        return bool((await kit.js.stream_info("IDENTITY")).state.messages >= count)
    except NotFoundError:
        return False


async def test_a_relay_whose_question_to_nats_drops_the_cancellation_ends_all_the_same(
    kit: Any, monkeypatch: Any
) -> None:
    """As `asyncio.wait_for` does where the answer comes at that moment."""
    identity = await kit.party("identity")
    await kit.topology()
    asked = asyncio.Event()
    real = JetStreamManager.stream_info

    async def stream_info(self: Any, name: str, *arguments: Any) -> Any:
        answer = await real(self, name, *arguments)
        asked.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return answer

    monkeypatch.setattr(JetStreamManager, "stream_info", stream_info)
    async with asyncio.timeout(30):
        async with identity.working():
            await asked.wait()
