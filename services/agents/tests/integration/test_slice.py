"""Register, claim, report, complete: the thinnest whole way through the service."""

from __future__ import annotations

import asyncio
from typing import Any

from peers import QueuedTask

from servicekit.testing.problems import assert_problem

ORGANIZATION = "org-1"


async def test_from_registration_to_completion(world: Any) -> None:
    world.workflow.add(QueuedTask("task-1", ORGANIZATION))
    agent = await world.register(tags=["Linux", " "], capacity=2)
    assert agent["status"] == "IDLE"
    assert agent["capabilities"] == ["python"]
    assert agent["tags"] == ["linux"]
    assert agent["heartbeat_interval_s"] == 10

    answer = await world.claim(agent, max=3)
    (claim,) = answer["claims"]
    assert answer["errors"] == []
    assert claim["attempt"] == 1
    assert claim["repository"] == {
        "clone_url": world.vcs.clone_url,
        "branch": "omoios/task-1-1",
        "base_sha": world.vcs.base_sha,
    }
    assert world.workflow.queue["task-1"].status == "running"
    assert (await world.get(f"/agents/{agent['agent_id']}")).json()["status"] == "RUNNING"

    sandbox, token = claim["sandbox"]["id"], claim["sandbox"]["token"]
    single = await world.post(
        f"/sandboxes/{sandbox}/events", {"event_type": "agent.started", "event_data": {"sdk": "command"}}, token
    )
    assert single.status_code == 200, single.text
    assert single.json()["status"] == "received"
    batch = await world.post(
        f"/sandboxes/{sandbox}/events/batch",
        {"events": [{"event_type": "agent.output", "event_data": {"line": str(n)}} for n in range(100)]},
        token,
    )
    assert batch.json()["accepted"] == 100
    assert batch.json()["last_sequence"] == 101

    beat = await world.post(f"/sandboxes/{sandbox}/heartbeat", {}, token)
    assert beat.json()["state"] == "running"
    assert beat.json()["token"] is None

    done = await world.post(
        f"/sandboxes/{sandbox}/task-complete",
        {"task_id": "task-1", "success": True, "result": {"engine": "command"}, "head_sha": "b" * 40},
        token,
    )
    assert done.status_code == 200, done.text
    assert done.json()["new_status"] == "completed"
    assert world.workflow.queue["task-1"].result == {"engine": "command"}
    assert world.workflow.queue["task-1"].head_sha == "b" * 40
    again = await world.post(
        f"/sandboxes/{sandbox}/task-complete",
        {"task_id": "task-1", "success": True, "head_sha": "b" * 40},
        token,
    )
    assert again.json() == done.json()
    assert (await world.get(f"/agents/{agent['agent_id']}")).json()["status"] == "IDLE"

    late = await world.post(f"/sandboxes/{sandbox}/events", {"event_type": "agent.output"}, token)
    assert_problem(late, 409, "agents.sandbox_ended")
    subjects = await world.subjects()
    assert subjects.count("agents.sandbox.started.v1") == 1
    assert subjects.count("agents.sandbox.ended.v1") == 1
    assert subjects.count("agents.usage.recorded.v1") == 1
    assert subjects.count("agents.sandbox.lifecycle_reported.v1") == 1
    assert subjects.count("agents.sandbox.events_recorded.v1") == 2


async def test_a_waiting_claim_is_woken_by_the_hint(world: Any) -> None:
    agent = await world.register()
    waiting = asyncio.create_task(world.claim(agent, wait_s=10))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    world.workflow.add(QueuedTask("task-9", ORGANIZATION))
    answer = await asyncio.wait_for(waiting, 4)
    assert [claim["task"]["id"] for claim in answer["claims"]] == ["task-9"]
    assert (await world.claim(agent, wait_s=0.3)) == {"claims": [], "errors": []}
