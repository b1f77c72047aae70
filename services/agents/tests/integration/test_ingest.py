"""Recording events: durable before the answer, ordered, once, and fenced."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

from omoios.agents.events.v1 import events_pb2
from servicekit.clock import utc_now
from servicekit.ids import new_id
from servicekit.testing.problems import assert_problem


async def test_two_hundred_single_events_at_once_and_one_bad_fails_alone(world: Any) -> None:
    sandbox = await world.sandbox()
    name, token = sandbox["sandbox"]["id"], sandbox["sandbox"]["token"]

    async def post(number: int) -> Any:
        body = {"event_type": "agent.output", "event_data": {"n": number}}
        if number == 77:
            body["event_data"] = "no object"  # type: ignore[assignment]
        answer = await world.post(f"/sandboxes/{name}/events", body, token)
        if answer.status_code == 200:
            # The answer has come, so the row must be there.
            (row,) = await world.rows(
                "SELECT event_data FROM sandbox_events WHERE event_id = $1", UUID(answer.json()["event_id"])
            )
            assert json.loads(row[0]) == {"n": number}
        return answer

    answers = await asyncio.gather(*(post(number) for number in range(200)))
    assert [answer.status_code for number, answer in enumerate(answers) if number != 77] == [200] * 199
    assert_problem(answers[77], 422, "request.invalid")
    assert answers[77].json()["detail"][0]["loc"] == ["body", "event_data"]
    sequences = await world.rows("SELECT sequence FROM sandbox_events WHERE sandbox_id = $1 ORDER BY 1", name)
    assert [row[0] for row in sequences] == list(range(1, 200))
    packed = await world.rows("SELECT payload FROM outbox WHERE subject = 'agents.sandbox.events_recorded.v1'")
    assert 1 <= len(packed) < 120
    told = [event.sequence for row in packed for event in events_pb2.SandboxEventsRecorded.FromString(row[0]).events]
    assert sorted(told) == list(range(1, 200))


async def test_a_repeated_request_without_ids_is_recorded_once(world: Any) -> None:
    sandbox = await world.sandbox()
    name = sandbox["sandbox"]["id"]
    headers = world.auth(sandbox["sandbox"]["token"]) | {"Idempotency-Key": "k-1"}
    one = {"event_type": "agent.output", "event_data": {"n": 1}}
    # Ids of now stand before and after it: what is repeated is looked for all the same.
    await world.post(f"/sandboxes/{name}/events", one | {"event_id": new_id()}, sandbox["sandbox"]["token"])
    path = f"/api/v1/sandboxes/{name}/events"
    first, again = [await world.http.post(path, json=one, headers=headers) for _ in range(2)]
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json()["event_id"] == again.json()["event_id"]
    # What is not the same request is another event; the words of two lines of one batch may be equal.
    other = await world.http.post(path, json=one | {"event_data": {"n": 2}}, headers=headers)
    assert other.json()["event_id"] != first.json()["event_id"]
    batch = {"events": [one, one]}
    received = [(await world.http.post(f"{path}/batch", json=batch, headers=headers)).json() for _ in range(2)]
    assert [(answer["accepted"], answer["duplicates"]) for answer in received] == [(2, 0), (0, 2)]
    assert len(await world.rows("SELECT 1 FROM sandbox_events WHERE sandbox_id = $1", name)) == 5


async def test_neighbours_in_one_batch_fail_alone(world: Any) -> None:
    good = await world.sandbox("task-1")
    gone = await world.sandbox("task-2")
    await world.post(
        f"/sandboxes/{gone['sandbox']['id']}/task-complete", {"task_id": "task-2"}, gone["sandbox"]["token"]
    )
    event = {"event_type": "agent.output", "event_data": {}}
    answers = await asyncio.gather(
        world.post(f"/sandboxes/{good['sandbox']['id']}/events", event, good["sandbox"]["token"]),
        world.post(f"/sandboxes/{gone['sandbox']['id']}/events", event, gone["sandbox"]["token"]),
        world.post(f"/sandboxes/{gone['sandbox']['id']}/events", event, good["sandbox"]["token"]),
        world.post("/sandboxes/unknown/events", event),
        world.post(f"/sandboxes/{good['sandbox']['id']}/events", event, world.stranger),
        world.post(f"/sandboxes/{good['sandbox']['id']}/events", event, world.viewer),
        world.post(f"/sandboxes/{good['sandbox']['id']}/events", event),
    )
    assert answers[0].status_code == 200
    assert_problem(answers[1], 409, "agents.sandbox_ended")
    for answer in answers[2:5]:
        assert_problem(answer, 404, "agents.sandbox_not_found")
    assert_problem(answers[5], 403, "auth.forbidden")
    assert answers[6].status_code == 200
    anonymous = await world.http.post(f"/api/v1/sandboxes/{good['sandbox']['id']}/events", json=event)
    assert anonymous.status_code == 401


async def test_the_same_event_id_is_one_event_for_ever(world: Any) -> None:
    sandbox = await world.sandbox()
    path, token = f"/sandboxes/{sandbox['sandbox']['id']}/events/batch", sandbox["sandbox"]["token"]
    ids = [new_id() for _ in range(5)]
    events = [{"event_id": event_id, "event_type": "agent.output"} for event_id in ids]
    first = (await world.post(path, {"events": events[:3]}, token)).json()
    assert (first["accepted"], first["duplicates"], first["last_sequence"]) == (3, 0, 3)
    again = (await world.post(path, {"events": events}, token)).json()
    assert (again["accepted"], again["duplicates"], again["last_sequence"]) == (2, 3, 5)
    # Two tries of the same batch that run into each other.
    batch = {"events": [{"event_id": str(uuid4()), "event_type": "agent.output"} for _ in range(50)]}
    answers = [answer.json() for answer in await asyncio.gather(*(world.post(path, batch, token) for _ in range(4)))]
    assert sum(answer["accepted"] for answer in answers) == 50
    assert sum(answer["duplicates"] for answer in answers) == 150
    twice = {"events": [{"event_id": ids[0], "event_type": "a"}, {"event_id": ids[0], "event_type": "a"}]}
    assert (await world.post(path, twice, token)).json()["accepted"] == 0


async def test_a_superseded_attempt_is_refused(world: Any) -> None:
    sandbox = await world.sandbox()
    name = sandbox["sandbox"]["id"]
    older = world.signing.sandbox("org-1", name, task_id="task-1", agent_id=sandbox["agent"]["agent_id"], attempt=7)
    answer = await world.post(f"/sandboxes/{name}/events", {"event_type": "agent.output"}, older)
    assert_problem(answer, 409, "agents.attempt_superseded")
    assert_problem(await world.post(f"/sandboxes/{name}/heartbeat", {}, older), 409, "agents.attempt_superseded")
    # The queue took the task back: the next heartbeat ends the sandbox, and its events are refused from then on.
    world.workflow.queue["task-1"].attempt += 1
    token = sandbox["sandbox"]["token"]
    assert (await world.post(f"/sandboxes/{name}/heartbeat", {}, token)).json()["state"] == "superseded"
    late = await world.post(f"/sandboxes/{name}/events", {"event_type": "agent.output"}, token)
    assert_problem(late, 409, "agents.attempt_superseded")
    done = await world.post(f"/sandboxes/{name}/task-complete", {"task_id": "task-1"}, token)
    assert_problem(done, 409, "agents.attempt_superseded")


async def test_transcripts_tokens_and_lifecycle_leave_the_event(world: Any) -> None:
    sandbox = await world.sandbox()
    name, token = sandbox["sandbox"]["id"], sandbox["sandbox"]["token"]
    event = {
        "event_id": new_id(),
        "event_type": "agent.completed",
        "event_data": {
            "session_id": "session-1",
            "transcript_b64": "QUJD" * 100_000,
            "input_tokens": 10,
            "output_tokens": 5,
            "model": "model-1",
        },
    }
    for _ in range(2):
        assert (await world.post(f"/sandboxes/{name}/events", event, token)).status_code == 200
    (row,) = await world.rows("SELECT event_data FROM sandbox_events WHERE sandbox_id = $1", name)
    assert "transcript_b64" not in row[0]
    (transcript,) = await world.rows("SELECT session_id, task_id, length(transcript_b64) FROM transcripts")
    assert tuple(transcript) == ("session-1", "task-1", 400_000)
    usage = await world.rows("SELECT payload FROM outbox WHERE subject = 'agents.usage.recorded.v1'")
    (entry,) = events_pb2.UsageRecorded.FromString(usage[0][0]).entries
    assert (entry.kind, entry.input_tokens, entry.output_tokens, entry.model) == ("model_tokens", 10, 5, "model-1")
    assert len(usage) == 1
    assert (await world.subjects()).count("agents.sandbox.lifecycle_reported.v1") == 1


async def test_a_session_goes_on_in_another_sandbox_and_its_transcript_with_it(world: Any) -> None:
    for number, session in enumerate(("session-1", "session-1", None)):
        sandbox = (await world.sandbox(f"task-{number}"))["sandbox"]
        data = {"transcript_b64": f"{number}" * 4} | ({"session_id": session} if session else {})
        event = {"event_type": "agent.completed", "event_data": data}
        assert (await world.post(f"/sandboxes/{sandbox['id']}/events", event, sandbox["token"])).status_code == 200
    rows = await world.rows("SELECT session_id, task_id, transcript_b64 FROM transcripts ORDER BY updated_at")
    assert [tuple(row) for row in rows] == [("session-1", "task-1", "1111"), (sandbox["id"], "task-2", "2222")]
    await world.execute("UPDATE transcripts SET updated_at = now() - interval '31 days' WHERE task_id = 'task-1'")
    (job,) = [job for job in world.running.service.jobs if job.name == "transcripts"]
    assert await job.run() == 1
    assert await job.run() == 0
    assert len(await world.rows("SELECT 1 FROM transcripts")) == 1


async def test_a_turn_reported_again_without_an_id_is_the_same_usage(world: Any) -> None:
    sandbox = await world.sandbox()
    name, token = sandbox["sandbox"]["id"], sandbox["sandbox"]["token"]
    for turns in (1, 1, 2):
        data = {"session_id": "session-1", "turns": turns, "input_tokens": 10}
        answer = await world.post(
            f"/sandboxes/{name}/events", {"event_type": "agent.completed", "event_data": data}, token
        )
        assert answer.status_code == 200
    ids = await usage_ids(world)
    assert len(ids) == 3
    assert ids[0] == ids[1] != ids[2]


async def test_a_turn_that_reports_only_its_cost_is_usage(world: Any) -> None:
    sandbox = (await world.sandbox())["sandbox"]
    event = {"event_type": "agent.completed", "event_data": {"cost_usd": 0.25}}
    assert (await world.post(f"/sandboxes/{sandbox['id']}/events", event, sandbox["token"])).status_code == 200
    (row,) = await world.rows("SELECT payload FROM outbox WHERE subject = 'agents.usage.recorded.v1'")
    (entry,) = events_pb2.UsageRecorded.FromString(row[0]).entries
    assert (entry.kind, entry.provider, entry.model) == ("model_tokens", "anthropic", "claude-sonnet-4")
    assert entry.reported_micro_usd == 250_000


async def test_one_id_in_two_sandboxes_is_two_usages(world: Any) -> None:
    event = {"event_id": str(uuid4()), "event_type": "agent.completed", "event_data": {"input_tokens": 10}}
    for number in (1, 2):
        sandbox = (await world.sandbox(f"task-{number}"))["sandbox"]
        assert (await world.post(f"/sandboxes/{sandbox['id']}/events", event, sandbox["token"])).status_code == 200
    assert len(set(await usage_ids(world))) == 2


async def usage_ids(world: Any) -> list[str]:
    rows = await world.rows("SELECT payload FROM outbox WHERE subject = 'agents.usage.recorded.v1' ORDER BY seq")
    return [entry.usage_id for row in rows for entry in events_pb2.UsageRecorded.FromString(row[0]).entries]


async def test_bad_events_are_named(world: Any) -> None:
    sandbox = await world.sandbox()
    path, token = f"/sandboxes/{sandbox['sandbox']['id']}/events", sandbox["sandbox"]["token"]
    for body, place in (
        ({}, ["body", "event_type"]),
        ({"event_type": ""}, ["body", "event_type"]),
        ({"event_type": "x" * 101}, ["body", "event_type"]),
        ({"event_type": "a", "source": "nobody"}, ["body", "source"]),
        ({"event_type": "a", "event_id": "1"}, ["body", "event_id"]),
        ({"event_type": "a", "event_data": [1]}, ["body", "event_data"]),
    ):
        answer = await world.post(path, body, token)
        assert_problem(answer, 422, "request.invalid")
        assert answer.json()["detail"][0]["loc"] == place, answer.text
    nul = await world.post(path, {"event_type": "a", "event_data": {"x": "a\x00b"}}, token)
    assert nul.status_code == 422
    # Once recorded, such a number would fail every reader of the sandbox's events.
    endless = b'{"event_type": "a", "event_data": {"n": ' + b"9" * 5_000 + b"}}"
    headers = {**world.auth(token), "Content-Type": "application/json"}
    refused = await world.http.post(f"/api/v1{path}", content=endless, headers=headers)
    assert_problem(refused, 422, "request.invalid")
    assert refused.json()["detail"][0]["loc"] == ["body", "event_data", "n"]
    large = await world.post(path, {"event_type": "a", "event_data": {"x": "y" * 100_001}}, token)
    assert_problem(large, 413, "agents.event_too_large")
    second = await world.post(
        f"{path}/batch", {"events": [{"event_type": "a"}, {"event_type": "b", "source": "x"}]}, token
    )
    assert second.json()["detail"][0]["loc"] == ["body", "events", 1, "source"]
    assert (await world.post(f"{path}/batch", {"events": []}, token)).status_code == 422
    many = {"events": [{"event_type": "a"}] * 501}
    assert (await world.post(f"{path}/batch", many, token)).status_code == 422
    assert await world.rows("SELECT 1 FROM sandbox_events") == []


async def test_partitions_are_made_and_take_over_what_came_before(world: Any) -> None:
    sandbox = await world.sandbox()
    name, token = sandbox["sandbox"]["id"], sandbox["sandbox"]["token"]
    await world.post(f"/sandboxes/{name}/events", {"event_type": "a"}, token)
    assert [row[0] for row in await world.rows("SELECT count(*) FROM event_days.sandbox_events_rest")] == [1]
    job = next(job for job in world.running.service.jobs if job.name == "event-partitions")
    await job.run()
    await job.run()
    assert [row[0] for row in await world.rows("SELECT count(*) FROM event_days.sandbox_events_rest")] == [0]
    await world.post(f"/sandboxes/{name}/events", {"event_type": "b"}, token)
    page = (await world.get(f"/sandboxes/{name}/events")).json()
    assert [event["event_type"] for event in page["events"]] == ["b", "a"]
    names = await world.rows(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'sandbox_events'::regclass"
    )
    assert len(names) == 5


WAITING = "SELECT count(*) FROM pg_locks WHERE relation = 'event_days.sandbox_events_rest'::regclass AND NOT granted"


async def test_events_that_arrive_while_a_day_gets_its_table_are_recorded(world: Any) -> None:
    """The insert has chosen the table for the rest and waits for it; when it gets it, the row belongs elsewhere."""
    sandbox = await world.sandbox()
    name, token = sandbox["sandbox"]["id"], sandbox["sandbox"]["token"]
    job = next(job for job in world.running.service.jobs if job.name == "event-partitions")
    other = await world.running.service.db.connect("test")

    async def until_waiting(count: int) -> None:
        for _ in range(1000):
            if (await world.rows(WAITING))[0][0] >= count:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{count} statements do not wait for the table")

    holding = other.transaction()
    await holding.start()
    await other.execute("LOCK TABLE event_days.sandbox_events_rest IN ROW EXCLUSIVE MODE")
    making = asyncio.create_task(job.run())
    await until_waiting(1)
    posts = [asyncio.create_task(world.post(f"/sandboxes/{name}/events", {"event_type": "a"}, token))]
    await until_waiting(2)
    # This one waits for the sandbox's row, which the first has locked, and meets the new table from the start.
    posts.append(asyncio.create_task(world.post(f"/sandboxes/{name}/events", {"event_type": "b"}, token)))
    await holding.commit()
    answers = await asyncio.gather(*posts)
    await making
    await other.close()
    assert [answer.status_code for answer in answers] == [200, 200]
    stored = await world.rows("SELECT tableoid::regclass::text, event_type FROM sandbox_events ORDER BY sequence")
    assert sorted(row[1] for row in stored) == ["a", "b"]
    assert {row[0] for row in stored} == {f"event_days.sandbox_events_{utc_now():%Y%m%d}"}
