"""Sandboxes: claims that fail, messages, reads, ends, consumers, revocation and the sweep."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
from peers import QueuedTask

from agents_service.main import build
from omoios.agents.events.v1 import events_pb2
from omoios.workflow.events.v1 import events_pb2 as workflow_events
from servicekit.ids import new_id
from servicekit.testing.problems import assert_problem


async def test_a_branch_that_cannot_start_gives_its_task_back(world: Any) -> None:
    world.workflow.add(QueuedTask("task-1", "org-1"))
    world.workflow.add(QueuedTask("task-2", "org-1"))
    world.vcs.refuse["task-1"] = "vcs.repository_not_ready"
    agent = await world.register(capacity=2)
    answer = await world.claim(agent, max=2)
    assert [claim["task"]["id"] for claim in answer["claims"]] == ["task-2"]
    assert answer["errors"] == [{"task_id": "task-1", "code": "vcs.repository_not_ready", "detail": "Not this one."}]
    assert world.workflow.released == [("task-1", "vcs.repository_not_ready: Not this one.")]
    assert world.workflow.not_started == ["task-1"]
    assert [row[0] for row in await world.rows("SELECT task_id FROM sandboxes")] == ["task-2"]


async def test_a_peer_that_is_down_leaves_nothing_claimed(world: Any) -> None:
    world.workflow.add(QueuedTask("task-1", "org-1"))
    agent = await world.register()
    world.vcs.down = True
    answer = await world.claim(agent)
    assert (answer["claims"], answer["errors"][0]["code"]) == ([], "vcs.unavailable")
    world.vcs.down, world.identity.down = False, True
    assert (await world.claim(agent))["errors"][0]["code"] == "identity.unavailable"
    world.identity.down = False
    world.workflow.lose_on_start = True
    answer = await world.claim(agent)
    assert (answer["claims"], answer["errors"][0]["code"]) == ([], "agents.attempt_superseded")
    assert world.workflow.not_started == [], "that somebody else is away says nothing about a task"
    assert await world.rows("SELECT 1 FROM sandboxes WHERE state = 'running'") == []
    assert (await world.get(f"/agents/{agent['agent_id']}")).json()["status"] == "IDLE"


async def test_a_task_without_a_repository_gets_no_branch(world: Any) -> None:
    claim = await world.sandbox(has_repository=False)
    assert claim["repository"] is None
    token = claim["sandbox"]["token"]
    path = f"/sandboxes/{claim['sandbox']['id']}/task-complete"
    assert (await world.post(path, {"task_id": "task-1"}, token)).status_code == 200
    assert world.vcs.finished == []


async def test_a_client_that_leaves_takes_no_task(service_host: Any, world_parts: Any, signing: Any) -> None:
    workflow, vcs, _, target = world_parts
    running = await service_host(
        build,
        "agents",
        rpc_targets={"workflow": target, "vcs": target, "identity": target},
        listen=True,
        claim_poll_s=0.3,
    )
    headers = {"Authorization": f"Bearer {await signing.user('user-1', 'org-1')}"}
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{running.http_port}", headers=headers) as http:
        body = {"agent_type": "worker", "capabilities": []}
        agent = (await http.post("/api/v1/agents/register", json=body)).json()
        path = f"/api/v1/agents/{agent['agent_id']}/claim"
        # It leaves while it waits.
        waiting = asyncio.create_task(http.post(path, json={"wait_s": 20}))
        await asyncio.sleep(0.3)
        waiting.cancel()
        await asyncio.sleep(0.1)
        task = workflow.add(QueuedTask("task-1", "org-1"))
        await asyncio.sleep(0.8)
        assert (task.status, task.attempt) == ("pending", 0)
        # It leaves while its task is being started.
        vcs.slow_s = 0.5
        waiting = asyncio.create_task(http.post(path, json={}))
        await asyncio.sleep(0.25)
        assert task.status == "assigned"
        waiting.cancel()
        for _ in range(40):
            if task.status == "pending":
                break
            await asyncio.sleep(0.05)
        assert task.status == "pending"
        assert workflow.released == [("task-1", "the claiming client went away")]


async def test_the_ready_hint_wakes_a_claim_long_before_its_poll(
    service_host: Any, world_parts: Any, signing: Any, tell: Any
) -> None:
    workflow, _, _, target = world_parts
    running = await service_host(
        build, "agents", rpc_targets={"workflow": target, "vcs": target, "identity": target}, claim_poll_s=20
    )
    await running.service.bus.wait_connected(5)
    headers = {"Authorization": f"Bearer {await signing.user('user-1', 'org-1')}"}
    agent = (
        await running.http.post(
            "/api/v1/agents/register", json={"agent_type": "worker", "capabilities": []}, headers=headers
        )
    ).json()
    path = f"/api/v1/agents/{agent['agent_id']}/claim"
    waiting = asyncio.create_task(running.http.post(path, json={"wait_s": 20}, headers=headers))
    await asyncio.sleep(0.3)
    workflow.add(QueuedTask("task-1", "org-1"))
    reference = workflow_events.TaskReference(task_id="task-1")
    await tell(running.service, ("org-1", workflow_events.TasksReady(tasks=[reference])))
    answer = await asyncio.wait_for(waiting, 3)
    assert len(answer.json()["claims"]) == 1


async def test_messages_whose_answer_was_lost_are_given_again_until_named(world: Any) -> None:
    claim = await world.sandbox()
    path, token = f"/sandboxes/{claim['sandbox']['id']}/messages", claim["sandbox"]["token"]
    for number in range(3):
        assert (await world.post(path, {"content": str(number), "message_type": "interrupt"})).status_code == 200
    first = (await world.get(f"{path}?after=", token)).json()
    assert [item["content"] for item in first] == ["0", "1", "2"]
    assert (await world.get(f"{path}?after=", token)).json() == first
    assert (await world.get(f"{path}?after={first[1]['id']}", token)).json() == first[2:]
    assert (await world.get(f"{path}?after=unknown", token)).json() == first[2:]
    assert (await world.get(f"{path}?after={first[2]['id']}", token)).json() == []
    assert (await world.get(path, token)).json() == []


async def test_a_heartbeat_that_meets_the_end_of_its_task_tells_failure_from_success(world: Any) -> None:
    for status, reason in (("failed", "failed"), ("completed", "completed")):
        claim = await world.sandbox(f"task-{status}")
        name, token = claim["sandbox"]["id"], claim["sandbox"]["token"]
        world.workflow.queue[f"task-{status}"].status = status
        beat = await world.post(f"/sandboxes/{name}/heartbeat", {"status": "running"}, token)
        assert beat.json()["state"] == "ended"
        (row,) = await world.rows("SELECT end_reason FROM sandboxes WHERE id = $1", name)
        assert row[0] == reason


async def test_a_completion_whose_answer_was_lost_is_answered_after_its_event(world: Any, tell: Any) -> None:
    claim = await world.sandbox()
    name, token = claim["sandbox"]["id"], claim["sandbox"]["token"]
    world.workflow.queue["task-1"].status = "completed"
    world.workflow.unblocks = ["task-2"]
    reference = workflow_events.TaskReference(task_id="task-1")
    ended = workflow_events.TaskCompleted(task=reference, sandbox_id=name, attempt=claim["attempt"])
    await tell(world.running.service, ("task-1", ended))
    body = {"task_id": "task-1", "success": True}
    answers = [await world.post(f"/sandboxes/{name}/task-complete", body, token) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
    assert answers[0].json() == answers[1].json()
    assert answers[0].json()["unblocked_tasks"] == ["task-2"]
    other = await world.post(f"/sandboxes/{name}/task-complete", body | {"success": False}, token)
    assert_problem(other, 409, "agents.sandbox_ended")
    (left,) = await world.rows(
        "SELECT r.due_at - s.ended_at FROM revocations r JOIN sandboxes s ON s.id = r.sandbox_id WHERE s.id = $1", name
    )
    assert left[0].total_seconds() >= 60


async def test_heartbeats_by_request_count_like_events(world: Any) -> None:
    claim = await world.sandbox()
    name, token = claim["sandbox"]["id"], claim["sandbox"]["token"]
    for _ in range(2):
        assert (await world.post(f"/sandboxes/{name}/heartbeat", {"status": "running"}, token)).status_code == 200
    summary = (await world.get(f"/sandboxes/{name}/trajectory")).json()["heartbeat_summary"]
    assert summary["count"] == 2
    assert summary["first_heartbeat"] < summary["last_heartbeat"]
    seen = (await world.get(f"/sandboxes/{name}/phase-status")).json()["activity"]
    assert seen["is_alive"]
    assert seen["heartbeat_status"] == "running"
    assert not seen["is_idle"]


async def test_messages_are_delivered_once_in_order(world: Any) -> None:
    claim = await world.sandbox()
    path, token = f"/sandboxes/{claim['sandbox']['id']}/messages", claim["sandbox"]["token"]
    for number in range(10):
        sent = await world.post(path, {"content": str(number)})
        assert sent.json()["status"] == "queued"
    assert [message["content"] for message in (await world.get(path)).json()] == [str(n) for n in range(10)]
    beat = await world.post(f"/sandboxes/{claim['sandbox']['id']}/heartbeat", {}, token)
    assert beat.json()["messages_pending"] == 10
    reads = await asyncio.gather(*(world.get(path, token) for _ in range(5)))
    taken = [message["content"] for read in reads for message in read.json()]
    assert taken == [str(number) for number in range(10)]
    assert (await world.get(path, token)).json() == []
    waiting = asyncio.create_task(world.get(f"{path}?wait_s=10", token))
    await asyncio.sleep(0.2)
    await world.post(path, {"content": "now", "message_type": "interrupt"})
    assert [message["message_type"] for message in (await asyncio.wait_for(waiting, 3)).json()] == ["interrupt"]

    assert_problem(await world.post(path, {"content": "x"}, world.viewer), 403, "auth.forbidden")
    assert_problem(await world.post(path, {"content": "x"}, world.stranger), 404, "agents.sandbox_not_found")
    assert_problem(await world.get(path, world.stranger), 404, "agents.sandbox_not_found")
    assert (await world.post(path, {"content": "x"}, token)).status_code == 403
    assert (await world.post(path, {"content": ""})).status_code == 422
    assert (await world.post(path, {"content": "x", "message_type": "shout"})).status_code == 422
    assert (await world.post(path, {"content": "x" * 10_001})).status_code == 422
    for _ in range(100):
        assert (await world.post(path, {"content": "x"})).status_code == 200
    assert_problem(await world.post(path, {"content": "x"}), 409, "agents.message_queue_full")
    await world.post(f"/sandboxes/{claim['sandbox']['id']}/task-complete", {"task_id": "task-1"}, token)
    assert_problem(await world.post(path, {"content": "x"}), 409, "agents.sandbox_ended")


async def test_events_and_trajectory_are_paged(world: Any) -> None:
    claim = await world.sandbox()
    name, token = claim["sandbox"]["id"], claim["sandbox"]["token"]
    events = []
    for number in range(30):
        events.append({"event_type": "agent.message", "event_data": {"n": number}})
        events.append({"event_type": "agent.heartbeat", "event_data": {"status": "alive"}})
        events.append({"event_type": "agent.tool_use", "event_data": {"tool": "Grep", "input": {"pattern": "x"}}})
    await world.post(f"/sandboxes/{name}/events/batch", {"events": events}, token)
    page = (await world.get(f"/sandboxes/{name}/events?limit=5&offset=3&event_type=agent.message")).json()
    assert page["total_count"] == 30
    assert [event["event_data"]["n"] for event in page["events"]] == [26, 25, 24, 23, 22]
    assert_problem(await world.get(f"/sandboxes/{name}/events", world.stranger), 404, "agents.sandbox_not_found")

    first = (await world.get(f"/sandboxes/{name}/trajectory?limit=12")).json()
    assert first["heartbeat_summary"]["count"] == 30
    assert (first["total_events"], first["trajectory_events"], first["has_more"]) == (90, 12, True)
    seen = [event["event_data"]["n"] for event in first["events"]]
    cursor = first["next_cursor"]
    while cursor:
        following = (await world.get(f"/sandboxes/{name}/trajectory?limit=12&cursor={cursor}")).json()
        seen += [event["event_data"]["n"] for event in following["events"]]
        cursor = following["next_cursor"]
    assert seen == list(range(29, -1, -1))
    oldest = following["events"][-1]["id"]
    newer = (await world.get(f"/sandboxes/{name}/trajectory?limit=3&direction=newer&cursor={oldest}")).json()
    assert [event["event_data"]["n"] for event in newer["events"]] == [3, 2, 1]
    assert_problem(await world.get(f"/sandboxes/{name}/trajectory?cursor=x"), 400, "agents.cursor_invalid")
    assert (await world.get(f"/sandboxes/{name}/trajectory?direction=sideways")).status_code == 422


async def test_task_phases_and_monitoring_are_shown(world: Any) -> None:
    claim = await world.sandbox()
    name, token = claim["sandbox"]["id"], claim["sandbox"]["token"]
    events = [
        {"event_type": "spec.phase_started", "event_data": {"phase": "explore"}},
        {"event_type": "spec.phase_completed", "event_data": {"phase": "explore"}},
        {"event_type": "agent.heartbeat", "event_data": {"status": "running"}},
    ]
    await world.post(f"/sandboxes/{name}/events/batch", {"events": events}, token)
    task = (await world.get(f"/sandboxes/{name}/task")).json()
    assert (task["id"], task["status"], task["title"], task["sandbox_id"]) == (
        "task-1",
        "running",
        "Title of task-1",
        name,
    )
    report = (await world.get(f"/sandboxes/{name}/phase-status")).json()
    assert report["phase_status"]["phases_completed"] == ["explore"]
    assert report["phase_status"]["next_expected_phase"] == "prd"
    assert report["activity"]["is_alive"] is True
    status = (await world.get("/sandboxes/monitoring/status")).json()
    assert (status["active_count"], status["spec_sandbox_count"], status["stuck_count"]) == (1, 1, 0)
    assert (await world.get("/sandboxes/monitoring/status", world.stranger)).json()["sandboxes"] == []
    for path in ("task", "phase-status", "trajectory"):
        assert_problem(await world.get(f"/sandboxes/{name}/{path}", world.stranger), 404, "agents.sandbox_not_found")
    assert (await world.http.get("/api/v1/sandboxes/health")).json()["status"] == "ok"
    del world.workflow.queue["task-1"]
    assert_problem(await world.get(f"/sandboxes/{name}/task"), 404, "agents.task_not_found")


async def test_completion_is_checked_and_idempotent(world: Any) -> None:
    claim = await world.sandbox()
    path, token = f"/sandboxes/{claim['sandbox']['id']}/task-complete", claim["sandbox"]["token"]
    assert_problem(await world.post(path, {"task_id": "task-2"}, token), 404, "agents.task_not_found")
    assert_problem(await world.post(path, {"task_id": "task-1"}, world.stranger), 404, "agents.sandbox_not_found")
    assert_problem(await world.post(path, {"task_id": "task-1"}, world.viewer), 403, "auth.forbidden")
    assert (await world.post(path, {"task_id": "task-1", "head_sha": "zz"}, token)).status_code == 422
    body = {"task_id": "task-1", "success": False, "result": {"commands": [{"command": "make", "exit_code": 2}]}}
    answers = await asyncio.gather(*(world.post(path, body, token) for _ in range(3)))
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["new_status"] for answer in answers} == {"failed"}
    assert world.workflow.queue["task-1"].error == "Command failed with exit code 2: make"
    other = await world.post(path, body | {"success": True}, token)
    assert_problem(other, 409, "agents.sandbox_ended")
    ended = await world.rows("SELECT payload FROM outbox WHERE subject = 'agents.sandbox.ended.v1'")
    assert [events_pb2.SandboxEnded.FromString(row[0]).reason for row in ended] == ["failed"]
    usage = await world.rows("SELECT payload FROM outbox WHERE subject = 'agents.usage.recorded.v1'")
    (entry,) = events_pb2.UsageRecorded.FromString(usage[0][0]).entries
    assert len(usage) == 1
    assert entry.kind == "sandbox_seconds"
    assert 0 < entry.sandbox_milliseconds < 60_000


async def test_release_and_usage(world: Any) -> None:
    claim = await world.sandbox()
    name, token = claim["sandbox"]["id"], claim["sandbox"]["token"]
    entry = {"usage_id": "1", "provider": "p", "model": "m", "input_tokens": 3}
    assert (await world.post(f"/sandboxes/{name}/usage", {"entries": [entry]}, token)).json()["accepted"] == 1
    bad = await world.post(f"/sandboxes/{name}/usage", {"entries": [entry | {"input_tokens": -1}]}, token)
    assert bad.status_code == 422
    turn = {"event_type": "agent.completed", "event_data": {"session_id": "s", "turns": 1, "input_tokens": 2}}
    assert (await world.post(f"/sandboxes/{name}/events", turn, token)).status_code == 200
    assert (await world.post(f"/sandboxes/{name}/release", {"reason": "going"}, token)).json()["task_id"] == "task-1"
    told = await world.rows("SELECT payload FROM outbox WHERE subject = 'agents.usage.recorded.v1'")
    used = [entry for row in told for entry in events_pb2.UsageRecorded.FromString(row[0]).entries]
    assert sorted(entry.kind for entry in used) == ["model_tokens", "model_tokens", "sandbox_seconds"]
    assert {entry.phase_id for entry in used} == {"PHASE_IMPLEMENTATION"}
    assert world.workflow.queue["task-1"].status == "pending"
    assert_problem(await world.post(f"/sandboxes/{name}/release", {}, token), 409, "agents.attempt_superseded")
    late = await world.post(f"/sandboxes/{name}/usage", {"entries": [entry]}, token)
    assert_problem(late, 409, "agents.attempt_superseded")


async def test_a_token_past_half_of_its_life_is_renewed(world: Any) -> None:
    claim = await world.sandbox()
    old = world.signing.sandbox(
        "org-1", claim["sandbox"]["id"], task_id="task-1", agent_id=claim["agent"]["agent_id"], ttl_s=600
    )
    beat = (await world.post(f"/sandboxes/{claim['sandbox']['id']}/heartbeat", {}, old)).json()
    assert beat["token"]
    assert (await world.post(f"/sandboxes/{claim['sandbox']['id']}/heartbeat", {}, beat["token"])).status_code == 200


async def test_a_cancelled_task_ends_its_sandbox_and_its_token(world: Any) -> None:
    claim = await world.sandbox()
    name, token = claim["sandbox"]["id"], claim["sandbox"]["token"]
    world.workflow.queue["task-1"].status = "cancelled"
    assert (await world.post(f"/sandboxes/{name}/heartbeat", {}, token)).json()["state"] == "cancelled"
    assert (await world.post(f"/sandboxes/{name}/heartbeat", {}, token)).json()["state"] == "cancelled"
    job = next(job for job in world.running.service.jobs if job.name == "revoke-sandbox-tokens")
    assert await job.run() == 1
    assert await job.run() == 0
    assert world.identity.revoked == [("sandbox", name)]


async def test_the_sweep_finds_what_no_event_told(world: Any) -> None:
    claim = await world.sandbox()
    held = await world.sandbox("task-2")
    job = next(job for job in world.running.service.jobs if job.name == "sweep-sandboxes")
    world.workflow.queue["task-1"].attempt += 1
    assert await job.run() == 0
    async with world.db.uow() as tx:
        await (await tx.connection()).execute("UPDATE sandboxes SET last_heartbeat_at = now() - interval '10 minutes'")
    assert_problem(await world.post("/sandboxes/admin/clear-tracked-sandboxes"), 403, "auth.forbidden")
    root = await world.signing.user("root", None, super_admin=True)
    cleared = await world.post("/sandboxes/admin/clear-tracked-sandboxes", token=root)
    assert cleared.json()["cleared_count"] == 1
    rows = {row[0]: row[1] for row in await world.rows("SELECT id, end_reason FROM sandboxes")}
    assert rows == {claim["sandbox"]["id"]: "lost", held["sandbox"]["id"]: None}


async def test_events_of_the_workflow_end_sandboxes_whatever_their_order(world: Any, tell: Any) -> None:
    service = world.running.service
    claims = {name: await world.sandbox(name) for name in ("task-1", "task-2", "task-3", "task-4", "task-5")}
    kinds = {
        "task-1": workflow_events.TaskCancelled,
        "task-2": workflow_events.TaskRequeued,
        "task-3": workflow_events.TaskFailed,
        "task-4": workflow_events.TaskCompleted,
        "task-5": workflow_events.TaskRetryScheduled,
    }

    stale = [
        (
            name,
            workflow_events.TaskRequeued(
                task=workflow_events.TaskReference(task_id=name), attempt=0, sandbox_id=f"older-{name}"
            ),
        )
        for name in claims
    ]
    await tell(service, *stale)
    assert await world.rows("SELECT 1 FROM sandboxes WHERE state = 'ended'") == []
    messages = [
        (
            name,
            kind(task=workflow_events.TaskReference(task_id=name), attempt=1, sandbox_id=claims[name]["sandbox"]["id"]),
        )
        for name, kind in kinds.items()
    ]
    await tell(service, *messages, *reversed(messages))
    rows = {row[0]: row[1] for row in await world.rows("SELECT task_id, end_reason FROM sandboxes")}
    assert rows == {
        "task-1": "cancelled",
        "task-2": "lost",
        "task-3": "failed",
        "task-4": "completed",
        "task-5": "failed",
    }
    assert (await world.subjects()).count("agents.sandbox.ended.v1") == 5
    assert len(await world.rows("SELECT 1 FROM revocations")) == 5


async def test_an_agent_that_its_former_member_registers_too_late_is_found_and_its_work_given_back(
    world: Any,
) -> None:
    claim = await world.sandbox()
    agent, sandbox = claim["agent"], claim["sandbox"]
    kept = await world.register()
    service = world.running.service
    departures = next(job for job in service.jobs if job.name == "sweep-departures").run
    assert await departures() == 0
    await world.execute("UPDATE agents SET registered_by = 'user:gone' WHERE id = $1", agent["agent_id"])
    # Of whom nothing is known may be on his way: a super admin, or somebody whose row did not arrive yet.
    assert await departures() == 0
    await world.execute(
        "INSERT INTO replica_memberships (user_id, organization_id, role, permissions, active, version) "
        "VALUES ('gone', $1, 'owner', '{agent:*}', false, 2)",
        "org-1",
    )
    assert await departures() == 1
    assert await departures() == 0
    rows = {row[0]: row[1] for row in await world.rows("SELECT id, status FROM agents")}
    assert rows == {kept["agent_id"]: "IDLE", agent["agent_id"]: "TERMINATED"}
    assert [row[0] for row in await world.rows("SELECT end_reason FROM sandboxes")] == ["lost"]
    intents = {row[0]: row[1] for row in await world.rows("SELECT sandbox_id, principal_type FROM revocations")}
    assert intents == {sandbox["id"]: "sandbox", agent["agent_id"]: "agent"}
    revoke = next(job for job in service.jobs if job.name == "revoke-sandbox-tokens").run
    assert await revoke() == 2
    assert {("sandbox", sandbox["id"]), ("agent", agent["agent_id"])} <= set(world.identity.revoked)
    answer = await world.post(f"/agents/{agent['agent_id']}/claim", {}, agent["token"])
    assert_problem(answer, 409, "agents.agent_not_active")


async def test_an_agent_that_is_taken_out_of_service_leaves_nothing_at_work(world: Any) -> None:
    claim = await world.sandbox()
    agent, sandbox = claim["agent"], claim["sandbox"]
    owner = await world.signing.user(new_id(), "org-1", "owner")
    for status in ("IDLE", "TERMINATED"):
        answer = await world.http.patch(
            f"/api/v1/agents/{agent['agent_id']}", json={"status": status}, headers={"Authorization": f"Bearer {owner}"}
        )
        assert answer.status_code == 200, answer.text
    jobs = {job.name: job.run for job in world.running.service.jobs}
    assert await jobs["end-sandboxes-of-terminated-agents"]() == 1
    assert await jobs["end-sandboxes-of-terminated-agents"]() == 0
    assert [row[0] for row in await world.rows("SELECT end_reason FROM sandboxes")] == ["lost"]
    await jobs["revoke-sandbox-tokens"]()
    assert {("sandbox", sandbox["id"]), ("agent", agent["agent_id"])} <= set(world.identity.revoked)
