"""Registered agents: every operation with its errors, and the sweep."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from peers import QueuedTask

from agents_service.agents.rules import heartbeat_checksum
from servicekit.testing.problems import assert_problem


async def test_registration_is_checked(world: Any) -> None:
    assert_problem(
        await world.post("/agents/register", {"agent_type": "worker", "capabilities": []}, world.viewer),
        403,
        "auth.forbidden",
    )
    body = {"agent_type": "worker", "capabilities": [], "organization_id": "org-1"}
    assert_problem(await world.post("/agents/register", body, world.stranger), 404, "agents.agent_not_found")
    for change, field in (
        ({"capacity": 0}, "capacity"),
        ({"agent_type": ""}, "agent_type"),
        ({"status": "busy"}, "status"),
        ({"capabilities": None}, "capabilities"),
    ):
        answer = await world.post("/agents/register", body | change)
        assert answer.status_code == 422, answer.text
        assert answer.json()["detail"][0]["loc"][:2] == ["body", field]
    assert (await world.http.post("/api/v1/agents/register", json=body)).status_code == 401
    refused = await world.post("/agents/register", body | {"status": "RUNNING"})
    assert_problem(refused, 409, "agents.transition_refused", from_status="SPAWNING", to_status="RUNNING")


async def test_a_member_of_two_organizations_who_names_none_means_the_first(world: Any) -> None:
    for organization_id in ("org-2", "org-1"):
        token = await world.signing.user("user-9", organization_id, "owner")
    answer = await world.post("/agents/register", {"agent_type": "worker", "capabilities": []}, token)
    assert answer.status_code == 201, answer.text
    (row,) = await world.rows("SELECT organization_id FROM agents WHERE id = $1", answer.json()["agent_id"])
    assert row[0] == "org-1"


async def test_an_idempotency_key_registers_once(world: Any) -> None:
    body = {"agent_type": "worker", "capabilities": []}
    headers = world.auth(world.owner) | {"Idempotency-Key": "k-1"}
    first = await world.http.post("/api/v1/agents/register", json=body, headers=headers)
    assert first.status_code == 201
    again = await world.http.post("/api/v1/agents/register", json=body, headers=headers)
    assert again.status_code == 409
    assert len((await world.get("/agents")).json()) == 1


async def test_reads_are_scoped_to_the_organization(world: Any) -> None:
    agent = await world.register(capabilities=["python", "Go"], phase_id="PHASE_TESTING")
    path = f"/agents/{agent['agent_id']}"
    for token, status in ((world.owner, 200), (world.viewer, 200), (world.stranger, 404), (agent["token"], 200)):
        assert (await world.get(path, token)).status_code == status
        assert (await world.get(f"{path}/health", token)).status_code == status
    for listing in ("/agents", "/agents/health", "/agents/search"):
        assert len((await world.get(listing, world.viewer)).json()) == 1
        assert (await world.get(listing, world.stranger)).json() == []
        assert (await world.http.get(f"/api/v1{listing}")).status_code == 401
    assert (await world.get("/agents?status=idle&phase_id=PHASE_TESTING")).json()[0]["agent_id"] == agent["agent_id"]
    assert (await world.get("/agents?status=RUNNING")).json() == []
    assert (await world.get("/agents?status=nonsense")).status_code == 422
    statistics = (await world.get("/agents/statistics")).json()
    assert statistics["total_agents"] == 1
    assert statistics["by_status"] == {"IDLE": 1}
    assert statistics["by_health"] == {"healthy": 1}
    assert statistics["health_summary"] == {"healthy": 1, "unhealthy": 0, "unknown": 0}
    health = (await world.get(f"{path}/health")).json()
    assert health["healthy"] is True
    assert health["timeout_seconds"] == 90
    assert_problem(await world.get("/agents/none"), 404, "agents.agent_not_found")


async def test_search_ranks_by_coverage(world: Any) -> None:
    await world.register(capabilities=["go"])
    both = await world.register(capabilities=["go", "python"], capacity=4)
    found = (await world.get("/agents/search?capabilities=Python&capabilities=go&limit=20")).json()
    assert [match["match_score"] for match in found] == [1.6, 0.95]
    best = (await world.get("/agents/best-fit?capabilities=python")).json()
    assert best["agent"]["agent_id"] == both["agent_id"]
    assert best["matched_capabilities"] == ["python"]
    assert_problem(await world.get("/agents/best-fit", world.stranger), 404, "agents.no_matching_agent")


async def test_changes_go_through_the_status_machine(world: Any) -> None:
    agent = await world.register()
    path = f"/agents/{agent['agent_id']}"
    patched = (
        await world.http.patch(
            f"/api/v1{path}", json={"capabilities": [" Rust "], "status": "degraded"}, headers=world.auth(world.owner)
        )
    ).json()
    assert (patched["capabilities"], patched["status"], patched["version"]) == (["rust"], "DEGRADED", 2)
    refused = await world.http.patch(f"/api/v1{path}", json={"status": "running"}, headers=world.auth(world.owner))
    assert_problem(refused, 409, "agents.transition_refused", from_status="DEGRADED", to_status="RUNNING")
    for token, status in ((world.viewer, 403), (world.stranger, 404)):
        answer = await world.http.patch(f"/api/v1{path}", json={"capacity": 2}, headers=world.auth(token))
        assert answer.status_code == status
    assert (await world.post(f"{path}/availability", {"available": True})).json()["is_available"] is True
    assert (await world.post(f"{path}/availability", {"available": False})).json()["status"] == "DEGRADED"
    assert_problem(await world.post(f"{path}/claim", {}), 409, "agents.agent_not_active")
    moves = await world.rows("SELECT from_status, to_status FROM agent_status_transitions ORDER BY id")
    assert [tuple(move) for move in moves] == [
        ("SPAWNING", "IDLE"),
        ("IDLE", "DEGRADED"),
        ("DEGRADED", "IDLE"),
        ("IDLE", "DEGRADED"),
    ]


async def test_heartbeats_are_one_update_and_no_event(world: Any) -> None:
    agent = await world.register()
    path, token = f"/agents/{agent['agent_id']}/heartbeat", agent["token"]
    body = {"agent_id": agent["agent_id"], "sequence_number": 1, "status": "IDLE"}
    before = await world.subjects()
    assert (await world.post(path, body, token)).json()["message"] is None
    gap = await world.post(path, body | {"sequence_number": 4}, token)
    assert gap.json()["message"] == "Missing sequence numbers: 2, 3"
    replay = await world.post(path, body | {"sequence_number": 2}, token)
    assert replay.json()["message"] == "Sequence number 2 was received before."
    assert await world.subjects() == before
    moment = datetime(2026, 11, 16, 10, 30, tzinfo=UTC)
    signed = body | {
        "sequence_number": 5,
        "timestamp": "2026-11-16T10:30:00Z",
        "health_metrics": {"cpu": 45.0},
        "checksum": heartbeat_checksum(agent["agent_id"], moment, 5, "IDLE", None, {"cpu": 45.0}),
    }
    assert (await world.post(path, signed, token)).status_code == 200
    assert_problem(await world.post(path, signed | {"status": "RUNNING"}, token), 400, "agents.checksum_invalid")
    assert_problem(await world.post(path, body | {"agent_id": "x"}, token), 400, "agents.heartbeat_mismatch")
    other = await world.register()
    assert_problem(await world.post(path, body, other["token"]), 404, "agents.agent_not_found")
    assert (await world.post(path, body | {"sequence_number": 9})).status_code == 200
    assert (await world.post(path, body, world.viewer)).status_code == 403
    assert (await world.post(path, body | {"sequence_number": 0}, token)).status_code == 422


async def test_silence_is_announced_degrades_and_fails_and_ends_with_a_heartbeat(world: Any) -> None:
    agent = await world.register()
    sweeper = next(job for job in world.running.service.jobs if job.name == "stale-agents").run.__self__
    await sweeper.sweep()

    async def silence(seconds: int) -> None:
        async with world.db.uow() as tx:
            await (await tx.connection()).execute(
                "UPDATE agents SET last_heartbeat = clock_timestamp() - make_interval(secs => $1)", float(seconds)
            )
        sweeper._since = datetime(2020, 1, 1, tzinfo=UTC)
        await sweeper.sweep()
        await sweeper.sweep()

    await silence(35)
    assert (await world.subjects()).count("agents.agent.went_stale.v1") == 1
    await silence(65)
    shown = (await world.get(f"/agents/{agent['agent_id']}")).json()
    assert (shown["status"], shown["health_status"]) == ("DEGRADED", "unresponsive")
    assert len((await world.get("/agents/stale?timeout_seconds=60")).json()) == 1
    body = {"agent_id": agent["agent_id"], "sequence_number": 1, "status": "IDLE"}
    assert (await world.post(f"/agents/{agent['agent_id']}/heartbeat", body, agent["token"])).status_code == 200
    shown = (await world.get(f"/agents/{agent['agent_id']}")).json()
    assert (shown["status"], shown["health_status"]) == ("IDLE", "healthy")
    assert (await world.subjects()).count("agents.agent.recovered.v1") == 1
    await silence(65)
    await silence(200)
    assert (await world.get(f"/agents/{agent['agent_id']}")).json()["status"] == "FAILED"
    ended = await world.post(f"/agents/{agent['agent_id']}/heartbeat", body | {"sequence_number": 2}, agent["token"])
    assert_problem(ended, 409, "agents.agent_ended")


async def test_a_sweep_judges_nobody_for_its_own_absence(world: Any) -> None:
    agent = await world.register()
    async with world.db.uow() as tx:
        await (await tx.connection()).execute("UPDATE agents SET last_heartbeat = now() - interval '1 hour'")
    sweeper = next(job for job in world.running.service.jobs if job.name == "stale-agents").run.__self__
    assert await sweeper.sweep() == 0
    assert (await world.get(f"/agents/{agent['agent_id']}")).json()["status"] == "IDLE"
    assert (await world.get(f"/agents/{agent['agent_id']}/health")).json()["is_stale"] is True


async def test_cleanup_marks_stale_agents_only(world: Any) -> None:
    await world.register()
    stale = await world.register()
    async with world.db.uow() as tx:
        await (await tx.connection()).execute(
            "UPDATE agents SET last_heartbeat = now() - interval '1 hour' WHERE id = $1", stale["agent_id"]
        )
    assert (await world.post("/agents/cleanup-stale", token=world.viewer)).status_code == 403
    done = (await world.post("/agents/cleanup-stale")).json()
    assert (done["marked_count"], done["marked_as"], done["timeout_seconds"]) == (1, "timeout", 90)
    assert (await world.post("/agents/cleanup-stale")).json()["marked_count"] == 0
    assert (await world.post("/agents/cleanup-stale?mark_as=terminated")).json()["marked_count"] == 1
    assert (await world.get(f"/agents/{stale['agent_id']}")).json()["status"] == "TERMINATED"


async def test_cleanup_takes_failed_agents_out_of_service_with_what_they_hold(world: Any) -> None:
    claim = await world.sandbox()
    agent, sandbox_id = claim["agent"], claim["sandbox"]["id"]
    await world.execute("UPDATE agents SET status = 'FAILED', last_heartbeat = now() - interval '1 hour'")
    assert (await world.post("/agents/cleanup-stale?mark_as=degraded")).json()["marked_count"] == 0
    assert (await world.post("/agents/cleanup-stale?mark_as=terminated")).json()["marked_count"] == 1
    assert (await world.get(f"/agents/{agent['agent_id']}")).json()["status"] == "TERMINATED"
    revoked = await world.rows("SELECT sandbox_id FROM revocations")
    assert [row[0] for row in revoked] == [agent["agent_id"]], "its token ends"
    job = next(job for job in world.running.service.jobs if job.name == "end-sandboxes-of-terminated-agents")
    await job.run()
    (state,) = await world.rows("SELECT state FROM sandboxes WHERE id = $1", sandbox_id)
    assert state[0] == "ended"


async def test_availability_outlives_silence_and_heartbeats(world: Any) -> None:
    agent = await world.register()
    path = f"/agents/{agent['agent_id']}"
    number = 0

    async def beat() -> str:
        nonlocal number
        number += 1
        body = {"agent_id": agent["agent_id"], "sequence_number": number, "status": "IDLE"}
        assert (await world.post(f"{path}/heartbeat", body, agent["token"])).status_code == 200
        return (await world.get(path)).json()["status"]

    await world.post(f"{path}/availability", {"available": False})
    assert await beat() == "DEGRADED"
    await world.post(f"{path}/availability", {"available": True})
    assert await beat() == "IDLE"
    # Silence degrades it, which a heartbeat ends; closed in the meantime it stays.
    degraded = "UPDATE agents SET status = 'DEGRADED', missed_heartbeats = 2"
    await world.execute(degraded)
    assert await beat() == "IDLE"
    await world.execute(degraded)
    await world.post(f"{path}/availability", {"available": False})
    assert await beat() == "DEGRADED"


async def test_a_claim_that_waits_gets_nothing_once_its_agent_is_closed(world: Any) -> None:
    agent = await world.register()
    waiting = asyncio.create_task(
        world.post(f"/agents/{agent['agent_id']}/claim", {"max": 1, "wait_s": 10}, agent["token"])
    )
    async with asyncio.timeout(20):
        while not world.workflow.claims:  # noqa: ASYNC110 - the peer counts, it does not tell.
            await asyncio.sleep(0.02)
    await world.post(f"/agents/{agent['agent_id']}/availability", {"available": False})
    world.workflow.add(QueuedTask("task-1", "org-1"))
    assert_problem(await waiting, 409, "agents.agent_not_active", agent_status="DEGRADED")
    assert await world.rows("SELECT 1 FROM sandboxes") == []
    assert world.workflow.queue["task-1"].status == "pending"


async def test_an_agent_gets_as_many_tasks_as_it_has_capacity(world: Any) -> None:
    for number in range(6):
        world.workflow.add(QueuedTask(f"task-{number}", "org-1"))
    agent = await world.register(capacity=3)
    first = await world.claim(agent, max=2)
    assert len(first["claims"]) == 2
    assert len((await world.claim(agent, max=50))["claims"]) == 1
    assert (await world.claim(agent, max=50)) == {"claims": [], "errors": []}
    done = await world.post(
        f"/sandboxes/{first['claims'][0]['sandbox']['id']}/task-complete",
        {"task_id": first["claims"][0]["task"]["id"], "success": False, "error_message": "no"},
        first["claims"][0]["sandbox"]["token"],
    )
    assert done.status_code == 200, done.text
    assert len((await world.claim(agent, max=50))["claims"]) == 1


async def test_claims_side_by_side_keep_the_capacity(world: Any) -> None:
    for number in range(12):
        world.workflow.add(QueuedTask(f"task-{number}", "org-1"))
    agent = await world.register(capacity=2)
    answers = await asyncio.gather(*(world.claim(agent, max=2) for _ in range(4)))
    assert sum(len(answer["claims"]) for answer in answers) == 2
    assert {error["code"] for answer in answers for error in answer["errors"]} <= {"agents.over_capacity"}
    assert len(await world.rows("SELECT 1 FROM sandboxes WHERE state = 'running'")) == 2
    assert sum(task.status == "running" for task in world.workflow.queue.values()) == 2
    assert sum(task.status == "pending" for task in world.workflow.queue.values()) == 10
