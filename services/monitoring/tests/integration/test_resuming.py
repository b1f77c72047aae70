"""Resuming a stream: nothing missed, nothing twice, whoever writes meanwhile and whichever instance answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import timedelta
from typing import Any

from websockets.asyncio.client import connect

from monitoring_service.event_streams.log_service import EventLog
from monitoring_service.main import build
from monitoring_service.settings import Settings
from omoios.workflow.events.v1 import events_pb2 as workflow
from servicekit.clock import utc_now
from servicekit.db import Database
from servicekit.events import Event
from servicekit.ids import new_id
from servicekit.testing.problems import assert_problem


async def test_a_stream_goes_on_where_it_was(world: Any) -> None:
    async with world.stream() as client:
        for number in range(3):
            await world.ticket(f"ticket-{number}")
        frames = await client.reads(3)
    await world.ticket("ticket-3", organization="org-2")
    await world.ticket("ticket-4")
    await world.logged(5)
    async with connect(world.url(token=world.owner, after=frames[0]["sequence"])) as socket:
        missed = [json.loads(await socket.recv()) for _ in range(3)]
        await world.ticket("ticket-5")
        live = json.loads(await socket.recv())
    assert missed[:2] == frames[1:]
    assert [frame["entity_id"] for frame in (*missed, live)] == ["ticket-1", "ticket-2", "ticket-4", "ticket-5"]


async def test_a_packed_event_is_resumed_in_its_middle(world: Any) -> None:
    await world.output("sandbox-1", 300)
    await world.logged(1)
    async with connect(world.url(token=world.owner, after=0), close_timeout=0.2) as socket:
        first = [json.loads(await socket.recv()) for _ in range(120)][-1]["sequence"]
    async with connect(world.url(token=world.owner, after=first)) as socket:
        rest = [json.loads(await socket.recv()) for _ in range(180)]
    assert [frame["payload"]["number"] for frame in rest] == list(range(120, 300))


async def test_what_is_gone_is_told_by_a_reset(world: Any) -> None:
    for number in range(3):
        await world.ticket(f"ticket-{number}")
    await world.logged(3)
    (head,) = (await world.rows("SELECT last_sequence FROM event_log_head"))[0]
    async with world.db.uow() as tx:
        await (await tx.connection()).execute("UPDATE event_log SET logged_at = logged_at - interval '25 hours'")
    for after in (head - 2, head + 100):
        async with connect(world.url(token=world.owner, after=after)) as socket:
            assert json.loads(await socket.recv()) == {"type": "reset"}
            await world.ticket(f"after {after}")
            assert json.loads(await socket.recv())["entity_id"] == f"after {after}"
    async with world.db.uow() as tx:
        await (await tx.connection()).execute("DELETE FROM event_log WHERE logged_at < now() - interval '24 hours'")
    async with connect(world.url(token=world.owner, after=head - 2)) as socket:
        assert json.loads(await socket.recv()) == {"type": "reset"}
    async with connect(world.url(token=world.owner, after="yesterday")) as socket:
        assert "error" in json.loads(await socket.recv())


def logged_event(name: str, organization: str) -> Event[Any]:
    body = workflow.TicketCreated(ticket_id=name, project_id="project-1", title=name)
    headers = {
        "Nats-Msg-Id": new_id(),
        "Omoios-Time": utc_now().isoformat(),
        "Omoios-Aggregate-Type": "ticket",
        "Omoios-Aggregate-Id": name,
        "Omoios-Organization": organization,
    }
    return Event(headers, "workflow.ticket.created.v1", body.SerializeToString())


async def test_nothing_is_missed_under_writers_who_commit_late(world: Any) -> None:
    """Writers hold their transactions open for different times; readers join, leave and resume all the while."""
    settings = Settings(env="test", database_url=world.db.url, database_pool_size=12)
    db = Database(settings)
    log = EventLog(db, settings)
    writers, each = 8, 15
    expected = {f"w{writer}-{number}" for writer in range(writers) for number in range(each)}

    async def write(writer: int) -> None:
        for number in range(each):
            async with db.uow() as tx:
                await asyncio.sleep(0.003 * ((writer + number) % 4))
                await log.append(tx, [logged_event(f"w{writer}-{number}", "org-1")])
                await asyncio.sleep(0.002 * ((writer * number) % 3))

    async def read(part: int) -> list[str]:
        """A client that is cut off after every `part` frames and resumes."""
        seen: list[str] = []
        after = 0
        while len(seen) < len(expected):
            async with connect(world.url(token=world.owner, after=after)) as socket:
                with contextlib.suppress(TimeoutError):
                    for _ in range(part):
                        async with asyncio.timeout(1.5):
                            frame = json.loads(await socket.recv())
                        assert frame["sequence"] > after
                        after = frame["sequence"]
                        seen.append(frame["entity_id"])
        return seen

    try:
        async with asyncio.timeout(30):
            readers = [asyncio.create_task(read(part)) for part in (7, 25, 1000)]
            await asyncio.gather(*(write(writer) for writer in range(writers)))
            for seen in await asyncio.gather(*readers):
                assert len(seen) == len(expected)
                assert set(seen) == expected
    finally:
        await log.hint.close()
        await db.close()


async def test_an_event_that_comes_twice_is_one(world: Any) -> None:
    async with world.stream() as client:
        event_id = await world.ticket("ticket-1")
        again = workflow.TicketCreated(ticket_id="ticket-1", project_id="project-1", title="again")
        await world.publish(again, "ticket-1", event_id=event_id)
        await world.ticket("ticket-2")
        assert [frame["entity_id"] for frame in await client.reads(2)] == ["ticket-1", "ticket-2"]
    assert len(await world.rows("SELECT 1 FROM event_log")) == 2


async def test_an_event_nobody_here_knows_is_kept(world: Any) -> None:
    headers = logged_event("x", "org-1")
    await world.bus.publish_stored(
        "workflow.novelty.appeared.v9",
        b"\x01",
        {
            "Nats-Msg-Id": headers.id,
            "Omoios-Time": utc_now().isoformat(),
            "Omoios-Aggregate-Type": "novelty",
            "Omoios-Aggregate-Id": "n-1",
            "Omoios-Organization": "org-1",
        },
    )
    await world.logged(1)
    async with world.stream(after=0) as client:
        await world.ticket("ticket-1")
        assert (await client.read())["entity_id"] == "ticket-1"


async def test_two_instances_deliver_and_take_over(world: Any, service_host: Any) -> None:
    other = await service_host(
        build, "monitoring", database_url=world.db.url, worker=True, listen=True, stream_poll_s=0.5
    )
    async with world.stream() as first, world.stream(running=other) as second:
        for number in range(20):
            await world.ticket(f"ticket-{number}")
        here, there = await first.reads(20), await second.reads(20)
    assert here == there
    assert {frame["entity_id"] for frame in here} == {f"ticket-{number}" for number in range(20)}
    await world.ticket("later")
    await world.logged(21)
    async with connect(world.url(running=other, token=world.owner, after=here[-1]["sequence"])) as socket:
        assert json.loads(await socket.recv())["entity_id"] == "later"


async def test_server_sent_events_resume_and_keep_alive(start: Any) -> None:
    world = await start(stream_heartbeat_s=0.2)
    await world.ticket("ticket-1")
    await world.ticket("ticket-2", organization="org-2")
    await world.ticket("ticket-3")
    await world.logged(3)

    async def listen(lines: int, last_event_id: str | None = None, **query: str) -> list[str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.running.http_port)
        pairs = "&".join(f"{name}={value}" for name, value in query.items())
        head = f"GET /api/v1/events/stream?{pairs} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {world.owner}\r\n"
        if last_event_id is not None:
            head += f"Last-Event-ID: {last_event_id}\r\n"
        writer.write(f"{head}\r\n".encode())
        found: list[str] = []
        async with asyncio.timeout(8):
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            assert "200 ok" in answer
            assert "text/event-stream" in answer
            while len(found) < lines:
                line = (await reader.readline()).decode().strip()
                if line.startswith(("id:", "data:", ":")):
                    found.append(line)
        writer.close()
        await writer.wait_closed()
        return found

    opened, first_id, first, second_id, second, ping = await listen(6, after="0")
    assert opened == ": open"
    assert ping == ": ping"
    assert json.loads(first.removeprefix("data: "))["entity_id"] == "ticket-1"
    frame = json.loads(second.removeprefix("data: "))
    assert (second_id, frame["entity_id"]) == (f"id: {frame['sequence']}", "ticket-3")
    resumed = await listen(3, last_event_id=first_id.removeprefix("id: "), entity_types="ticket")
    assert resumed[1:] == [second_id, second]
    reset = await listen(3, after="999")
    assert reset[1:] == [second_id, 'data: {"type":"reset"}']

    assert_problem(await world.http.get("/api/v1/events/stream"), 401, "auth.unauthenticated")
    assert_problem(await world.get("/events/stream?after=x"), 422, "request.invalid")
    bad = await world.http.get("/api/v1/events/stream", headers=world.auth(world.owner) | {"Last-Event-ID": "x"})
    assert_problem(bad, 422, "request.invalid")


async def test_days_are_made_ahead_and_dropped(world: Any) -> None:
    log = EventLog(world.db, world.running.service.settings)
    await log.keep_partitions()
    today = utc_now().date()

    async def days() -> set[str]:
        rows = await world.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'event_days'")
        return {row[0] for row in rows}

    assert {f"event_log_{today + timedelta(days=ahead):%Y%m%d}" for ahead in range(4)} <= await days()
    old = today - timedelta(days=5)
    async with world.db.uow() as tx:
        await (await tx.connection()).execute(
            f"CREATE TABLE event_days.event_log_{old:%Y%m%d} PARTITION OF event_log "
            f"FOR VALUES FROM ('{old}T00:00:00Z') TO ('{old + timedelta(days=1)}T00:00:00Z')"
        )
    await log.keep_partitions()
    assert f"event_log_{old:%Y%m%d}" not in await days()
    assert f"event_log_{today:%Y%m%d}" in await days()
    await world.ticket("ticket-1")
    await world.logged(1)
    assert len(await world.rows(f"SELECT 1 FROM event_days.event_log_{today:%Y%m%d}")) == 1
