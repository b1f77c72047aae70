"""The event WebSocket as its clients see it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import connect

from omoios.agents.events.v1 import events_pb2 as agents
from omoios.billing.events.v1 import events_pb2 as billing
from omoios.workflow.events.v1 import events_pb2 as workflow
from servicekit.testing.problems import assert_problem


@pytest.mark.parametrize("path", ["/api/v1/ws/events", "/api/v1/events"])
async def test_frames_have_the_contracts_shape(world: Any, path: str) -> None:
    async with world.stream(path=path) as client:
        await world.ticket("ticket-1")
        frame = await client.read()
    assert set(frame) == {"event_type", "entity_type", "entity_id", "payload", "sequence"}
    assert (frame["event_type"], frame["entity_type"], frame["entity_id"]) == ("TICKET_CREATED", "ticket", "ticket-1")
    assert frame["payload"]["title"] == "Title of ticket-1"
    assert frame["payload"]["priority"] == "HIGH"
    assert frame["sequence"] > 0


async def test_a_bad_token_is_told_and_closed_with_4401(world: Any) -> None:
    for url in (
        f"ws://127.0.0.1:{world.running.http_port}/api/v1/ws/events",
        world.url(token="nonsense"),
        world.url(token=world.signing.user_token("user-1", ttl_s=-60)),
    ):
        async with connect(url) as socket:
            assert json.loads(await socket.recv())["error"]
            await socket.wait_closed()
        assert socket.close_code == 4401


async def test_a_sandbox_may_not_listen(world: Any) -> None:
    token = world.signing.sandbox("org-1", "sandbox-1", task_id="task-1", agent_id="agent-1")
    async with connect(world.url(token=token)) as socket:
        assert "error" in json.loads(await socket.recv())
        await socket.wait_closed()
    assert socket.close_code == 1008


async def test_a_tenant_sees_only_its_own(world: Any) -> None:
    async with world.stream() as own, world.stream(world.stranger) as foreign:
        await world.ticket("theirs", organization="org-2")
        await world.ticket("ours")
        assert (await own.read())["entity_id"] == "ours"
        assert (await foreign.read())["entity_id"] == "theirs"
        with pytest.raises(TimeoutError):
            await foreign.read(0.4)


async def test_frames_follow_the_readers_permissions(world: Any) -> None:
    async with world.stream() as owner, world.stream(world.viewer) as viewer:
        held = billing.ReservationHeld(reservation_id="r-1", execution_id="e-1", project_id="project-1")
        await world.publish(held, "r-1")
        await world.logged(1)
        await world.ticket("ticket-1")
        assert (await owner.read())["event_type"] == "billing.reservation.held"
        assert (await viewer.read())["event_type"] == "TICKET_CREATED"


async def test_a_project_id_makes_a_board_live(world: Any) -> None:
    async with world.stream(entity_ids="project-1") as board:
        names = ["TICKET_CREATED", "TICKET_STATUS_CHANGED", "TASK_COMPLETED"]
        answer = await board.ask({"type": "subscribe", "event_types": names})
        assert answer == {"status": "subscribed", "filters": {"event_types": names}}
        await world.ticket("elsewhere", project="project-2")
        await world.ticket("here")
        await world.logged(2)
        moved = workflow.TicketTransitioned(
            ticket_id="here", project_id="project-1", from_status="backlog", to_status="done"
        )
        await world.publish(moved, "here", 2)
        await world.logged(3)
        task = workflow.TaskReference(task_id="task-1", ticket_id="here", project_id="project-1", title="T")
        await world.publish(workflow.TaskStarted(task=task, sandbox_id="s"), "task-1", 2)
        await world.publish(workflow.TaskCompleted(task=task, sandbox_id="s"), "task-1", 3)
        created, changed, completed = await board.reads(3)
    assert (created["event_type"], created["entity_id"]) == ("TICKET_CREATED", "here")
    assert (changed["event_type"], changed["payload"]["to_status"]) == ("TICKET_STATUS_CHANGED", "done")
    assert completed["event_type"] == "TASK_COMPLETED"
    assert completed["payload"]["ticket_id"] == "here"
    assert completed["payload"]["task_title"] == "T"


async def test_filters_replace_widen_and_refuse(world: Any) -> None:
    async with world.stream(event_types="TICKET_UPDATED, TICKET_CREATED", entity_types="ticket") as client:
        await world.output("sandbox-1", 3)
        await world.logged(1)
        await world.ticket("one")
        assert (await client.read())["entity_id"] == "one"
        await client.ask({"type": "subscribe", "event_types": None, "entity_types": []})
        await world.output("sandbox-1", 2)
        assert [frame["event_type"] for frame in await client.reads(2)] == ["SANDBOX_agent.output"] * 2
        assert "error" in await client.ask({"type": "subscribe", "event_types": "TICKET_CREATED"})
        assert "error" in await client.ask({"type": "subscribe", "entity_ids": ["x"] * 201})
        assert await client.ask("[1]") == {"error": "Invalid JSON message"}
        assert await client.ask("{") == {"error": "Invalid JSON message"}
        await client.say({"type": "something else"})
        assert await client.ask({"type": "subscribe"}) == {"status": "subscribed", "filters": {}}


async def test_sandbox_events_are_expanded_and_cleaned(world: Any) -> None:
    data = {"session_id": "s", "transcript_b64": "QUJD" * 100, "turns": 3, "input_tokens": 12, "github_token": "abc"}
    line = {"line": "pushed to https://me:hunter2@example.com with ghp_" + "a1B2" * 9}
    events = [
        agents.SandboxEvent(event_id="1", sequence=1, event_type="agent.output", data_json=json.dumps(line).encode()),
        agents.SandboxEvent(
            event_id="2",
            sequence=2,
            event_type="agent.completed",
            data_json=json.dumps(data).encode(),
            source="agent",
        ),
    ]
    message = agents.SandboxEventsRecorded(
        sandbox_id="sandbox-1", task_id="task-1", project_id="project-1", events=events
    )
    async with world.stream() as client:
        await world.publish(message, "sandbox-1")
        output, completed, bare = await client.reads(3)
    assert "hunter2" not in output["payload"]["line"]
    assert "ghp_" not in output["payload"]["line"]
    assert (completed["event_type"], completed["entity_id"]) == ("SANDBOX_agent.completed", "sandbox-1")
    payload = completed["payload"]
    assert payload["original_event_type"] == "agent.completed"
    assert payload["source"] == "agent"
    assert payload["input_tokens"] == 12
    assert payload["github_token"] == "[redacted]"
    assert "transcript_b64" not in payload
    assert (bare["event_type"], bare["entity_type"]) == ("agent.completed", "task")
    assert [output["sequence"], completed["sequence"], bare["sequence"]] == list(
        range(output["sequence"], output["sequence"] + 3)
    )


async def test_a_silent_client_is_pinged(start: Any) -> None:
    world = await start(stream_ping_s=0.2)
    async with world.stream() as client:
        assert await client.read(2) == {"type": "ping"}
        assert await client.read(2) == {"type": "ping"}


async def test_a_revoked_session_is_closed(world: Any) -> None:
    token = await world.signing.user("user-1", "org-1", session_id="session-9")
    async with world.stream(token) as client:
        await world.signing.revoke("session", "session-9")
        assert await client.closed() == 4401


async def test_an_expired_token_is_closed_so_that_only_a_fresh_one_comes_back(world: Any) -> None:
    for ttl_s in (2, 8, 32):
        token = world.signing.user_token("user-1", ttl_s=ttl_s)
        async with connect(world.url(token=token)) as socket:
            await socket.wait_closed()
        if socket.close_code != 4401:
            break
        # The token had expired before the stream was open; a slow machine gets more time.
    assert socket.close_code == 4408
    async with connect(world.url(token=token)) as socket:
        await socket.wait_closed()
    assert socket.close_code == 4401


async def test_a_removed_member_hears_nothing_more(world: Any) -> None:
    token = await world.signing.user("user-7", "org-1", "member")
    await world.signing.member("user-7", "org-2", "viewer")
    async with world.stream(token) as client:
        await world.signing.member("user-7", "org-1", active=False)
        await asyncio.sleep(0.3)
        await world.ticket("not for him")
        await world.logged(1)
        await world.ticket("for him", organization="org-2")
        assert (await client.read())["entity_id"] == "for him"
        await world.signing.member("user-7", "org-2", active=False)
        assert await client.closed() == 1008


async def test_a_new_member_hears_from_then_on(world: Any) -> None:
    async with world.stream(world.stranger) as client:
        await world.signing.member("user-3", "org-1", "member")
        await asyncio.sleep(0.3)
        await world.ticket("ours now")
        assert (await client.read())["entity_id"] == "ours now"


async def test_a_slow_client_is_dropped_and_slows_nobody(start: Any) -> None:
    world = await start(stream_queue_frames=200)
    async with world.stream() as slow, world.stream(entity_types="ticket") as quick:
        slow.socket.transport.pause_reading()
        for number in range(40):
            await world.output("sandbox-1", 100, size=2_000)
            if number % 10 == 0:
                await world.ticket(f"ticket-{number}")
        seen = [frame["entity_id"] for frame in await quick.reads(4)]
        assert seen == ["ticket-0", "ticket-10", "ticket-20", "ticket-30"]
        slow.socket.transport.resume_reading()
        assert await slow.closed() == 4408


async def test_streams_are_limited(start: Any) -> None:
    world = await start(streams_per_user_max=1)
    async with world.stream():
        async with connect(world.url(token=world.owner)) as socket:
            assert json.loads(await socket.recv()) == {"error": "Service not ready, please retry"}
            await socket.wait_closed()
        assert socket.close_code == 1013
        assert_problem(await world.get("/events/stream"), 503, "monitoring.streams_exhausted")
    async with world.stream() as again:
        assert (await again.ask({"type": "subscribe"}))["status"] == "subscribed"
