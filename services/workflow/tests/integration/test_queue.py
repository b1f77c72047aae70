"""The queue on a real database: claims, leases, fencing, retries, the sweeper, limits."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from omoios.identity.events.v1 import events_pb2 as identity
from omoios.identity.v1 import identity_pb2 as identity_v1
from omoios.vcs.events.v1 import events_pb2 as vcs_events
from omoios.workflow.v1 import workflow_pb2 as pb
from servicekit import telemetry
from servicekit.errors import AppError
from servicekit.ids import new_id
from workflow_service.clients import BillingClient
from workflow_service.queue.claims_service import ClaimService
from workflow_service.queue.limits_service import LimitService
from workflow_service.queue.service import QueueService


def plan_of(tasks: int, extra: str = "") -> str:
    return "# Many\n## Tasks\n" + "".join(f"### T{n}: t{n}\n{extra}- Command: true\n" for n in range(tasks))


async def executing(flow: Any, plan: str, **project: Any) -> Any:
    found = await flow.project(**project)
    spec = await flow.spec(found["id"], plan)
    await flow.call("POST", f"/specs/{spec['id']}/execute")
    return spec


async def test_two_hundred_claimers_take_each_task_once(flow: Any) -> None:
    await executing(flow, plan_of(120), settings={"max_concurrent_tasks": -1})
    waits = telemetry.REGISTRY.get_sample_value("workflow_queue_wait_seconds_count") or 0.0
    answers = await asyncio.gather(*(flow.claim(1) for _ in range(200)))
    taken = [task.task_id for answer in answers for task in answer]
    assert len(taken) == len(set(taken)) == 120
    assert {len(answer) for answer in answers} == {0, 1}
    rows = await flow.sql("SELECT count(*) AS n FROM tasks WHERE status = 'assigned' AND attempt = 1")
    assert rows[0]["n"] == 120
    assert telemetry.REGISTRY.get_sample_value("workflow_queue_wait_seconds_count") == waits + 120


async def test_limits_of_project_and_organization_hold_under_concurrency(flow: Any) -> None:
    await executing(flow, plan_of(30))
    taken = [task for answer in await asyncio.gather(*(flow.claim(3) for _ in range(20))) for task in answer]
    assert len(taken) == 5, "a project runs five tasks at once unless its settings say otherwise"
    reasons = await flow.call("GET", "/tasks?status=pending&limit=1")
    waiting = await flow.call("GET", f"/tasks/{reasons[0]['id']}/readiness")
    assert [one["code"] for one in waiting["reasons"]] == ["project_at_capacity"]
    await flow.complete(taken[0])
    assert len(await flow.claim(3)) == 1
    await flow.sql("UPDATE projects SET max_concurrent_tasks = -1")
    await flow.sql("UPDATE queue_limits SET agents_limit = 7")
    assert len(await flow.claim(30)) == 2, "the organization's limit holds for all of its projects"


async def test_an_organization_never_runs_more_agents_than_it_allows(flow: Any) -> None:
    """Two hundred claimers at four instances, each with batches of its own, on one database."""
    await executing(flow, plan_of(30), settings={"max_concurrent_tasks": -1})
    told = {"organization_id": flow.organization, "max_agent_runtime_hours": 100.0}
    await flow.deliver(identity.OrganizationCreated(max_concurrent_agents=7, **told))
    service = flow.running.service
    limits = LimitService(flow.db, QueueService(), BillingClient(service.channels), service.settings)
    instances = [ClaimService(flow.db, QueueService(), limits, service.settings) for _ in range(4)]

    async def claim(number: int) -> list[Any]:
        return await instances[number % 4].claim(
            organization_ids=[flow.organization], agent_id=f"a-{number}", maximum=1, sandbox_ids=[f"s-{number}"]
        )

    taken = [task for answer in await asyncio.gather(*(claim(number) for number in range(200))) for task in answer]
    assert len({task.id for task in taken}) == len(taken) == 7
    waiting = (await flow.call("GET", "/tasks?status=pending&limit=1"))[0]["id"]
    (reason,) = (await flow.call("GET", f"/tasks/{waiting}/readiness"))["reasons"]
    assert reason["code"] == "organization_at_capacity"
    assert "7 of 7" in reason["detail"]
    assert "max_concurrent_agents" in reason["detail"]

    await flow.deliver(identity.OrganizationUpdated(max_concurrent_agents=9, **told), version=3)
    await flow.deliver(identity.OrganizationUpdated(max_concurrent_agents=20, **told), version=2)
    assert len(await flow.claim(30)) == 2, "the newest version counts, whichever comes last"
    flow.identity.organizations = [
        identity_v1.Organization(id=flow.organization, version=4, max_concurrent_agents=10, max_agent_runtime_hours=9.0)
    ]
    (source,) = service.replicas
    assert await source.rebuild() == 1
    assert len(await flow.claim(30)) == 1, "a rebuild brings what no event told"


async def test_an_organization_that_used_up_its_hours_starts_nothing_more(flow: Any) -> None:
    await executing(flow, plan_of(3))
    told = {"organization_id": flow.organization, "max_concurrent_agents": 5, "max_agent_runtime_hours": 1.5}
    await flow.deliver(identity.OrganizationCreated(**told))
    (running,) = await flow.claim(1)
    flow.billing.sandbox_ms = 5_760_000
    await flow.sql("UPDATE queue_limits SET refreshed_at = clock_timestamp() - interval '61 seconds'")
    assert await flow.claim(1) == []
    waiting = (await flow.call("GET", "/tasks?status=pending&limit=1"))[0]["id"]
    (reason,) = (await flow.call("GET", f"/tasks/{waiting}/readiness"))["reasons"]
    assert reason["code"] == "organization_out_of_hours"
    assert "1.6 of the 1.5 hours" in reason["detail"]
    assert (await flow.start(running)).state == pb.ATTEMPT_STATE_HELD, "what runs goes on"
    await flow.deliver(identity.OrganizationUpdated(**told | {"max_agent_runtime_hours": 2.0}), version=2)
    assert len(await flow.claim(1)) == 1
    await flow.deliver(identity.OrganizationUpdated(**told), version=3)
    assert await flow.claim(1) == []
    await flow.sql("UPDATE queue_limits SET period_ends_at = clock_timestamp()")
    assert len(await flow.claim(1)) == 1, "a new month begins with all its hours"


async def test_capabilities_and_projects_narrow_a_claim(flow: Any) -> None:
    spec = await executing(flow, plan_of(2, "- Capabilities: python, gpu\n"))
    assert await flow.claim(capabilities=["python"]) == []
    assert await flow.claim(capabilities=["python", "gpu"], project_ids=["project-other"]) == []
    claimed = await flow.claim(capabilities=["gpu", "python", "more"], project_ids=[spec["project_id"]])
    assert len(claimed) == 2


async def test_an_older_attempt_changes_nothing(flow: Any) -> None:
    await executing(flow, plan_of(1))
    (old,) = await flow.claim()
    assert (await flow.start(old)).state == pb.ATTEMPT_STATE_HELD
    await flow.sql("UPDATE tasks SET lease_expires_at = clock_timestamp() - interval '1 second'")
    await flow.job("sweep-leases")()
    requeued = await flow.events("workflow.task.requeued.v1")
    assert len(requeued) == 1
    (new,) = await flow.claim()
    assert (new.attempt, new.task_id) == (2, old.task_id)
    with pytest.raises(AppError) as refused:
        await flow.complete(old)
    assert refused.value.code == "workflow.attempt_superseded"
    with pytest.raises(AppError):
        await flow.fail(old, "boom")
    measured = (await flow.http.get("/metrics")).text
    for sample in (
        'leases_total{outcome="granted"}',
        'leases_total{outcome="expired"}',
        'executions_total{outcome="started"}',
    ):
        assert f"workflow_{sample}" in measured
    beat = await flow.rpc.HeartbeatTasks(
        pb.HeartbeatTasksRequest(
            attempts=[
                pb.TaskAttempt(task_id=one.task_id, attempt=one.attempt, sandbox_id=one.sandbox_id)
                for one in (old, new)
            ]
        ),
        None,
    )
    assert [one.state for one in beat.statuses] == [pb.ATTEMPT_STATE_LOST, pb.ATTEMPT_STATE_HELD]
    assert await flow.complete(new) == "completed"
    assert len(await flow.events("workflow.task.completed.v1")) == 1


async def test_a_failure_is_tried_again_with_backoff_until_retries_are_used_up(flow: Any) -> None:
    await executing(flow, plan_of(1, "- Retries: 1\n"))
    (task,) = await flow.claim()
    answer = await flow.fail(task, "connection reset")
    assert answer.will_retry
    again = await flow.fail(task, "connection reset")
    assert again.will_retry, "the same report again does not count twice"
    rows = await flow.sql(
        "SELECT retry_count, extract(epoch FROM not_before - clock_timestamp())::float8 AS delay FROM tasks"
    )
    assert rows[0]["retry_count"] == 1
    assert 0.0 < rows[0]["delay"] <= 1.25
    assert await flow.claim() == [], "not before its time"
    reasons = await flow.call("GET", f"/tasks/{task.task_id}/readiness")
    assert reasons["reasons"][0]["code"] == "backoff"
    await flow.sql("UPDATE tasks SET not_before = clock_timestamp()")
    await flow.job("sweep-leases")()
    assert (await flow.call("GET", f"/tasks/{task.task_id}"))["error_message"] == "connection reset"
    (second,) = await flow.claim()
    assert json.loads(second.context_json)["revision"] == {"feedback": "connection reset", "iteration": 1}
    assert not (await flow.fail(second, "connection reset")).will_retry
    assert len(await flow.events("workflow.task.failed.v1")) == 1


async def test_what_a_retry_achieves_clears_the_error_before(flow: Any) -> None:
    await executing(flow, plan_of(1, "- Retries: 1\n"))
    (task,) = await flow.claim()
    await flow.fail(task, "connection reset")
    await flow.sql("UPDATE tasks SET not_before = clock_timestamp()")
    (second,) = await flow.claim()
    await flow.complete(second)
    assert (await flow.call("GET", f"/tasks/{task.task_id}"))["error_message"] is None


async def test_a_permanent_error_is_not_tried_again(flow: Any) -> None:
    spec = await executing(flow, plan_of(1))
    (task,) = await flow.claim()
    assert not (await flow.fail(task, "Permission denied")).will_retry
    found = await flow.call("GET", f"/specs/{spec['id']}")
    assert (found["status"], found["progress"]) == ("failed", 0.0)


async def test_a_task_that_runs_too_long_is_ended(flow: Any) -> None:
    await executing(flow, plan_of(1, "- Timeout: 10m\n- Retries: 0\n"))
    (task,) = await flow.claim()
    await flow.start(task)
    await flow.sql(
        "UPDATE tasks SET timeout_at = clock_timestamp() - interval '1 second',"
        " started_at = started_at - interval '1 hour'"
    )
    listed = await flow.call("GET", "/tasks/timed-out")
    assert [one["id"] for one in listed] == [task.task_id]
    cleaned = await flow.call("POST", "/tasks/cleanup-timed-out")
    assert cleaned == {"cleaned_count": 1, "total_timed_out": 1}
    found = await flow.call("GET", f"/tasks/{task.task_id}")
    assert found["status"] == "failed"
    assert "timed out" in found["error_message"]


async def test_a_task_that_loses_every_sandbox_fails(flow: Any) -> None:
    await executing(flow, plan_of(1))
    for _ in range(5):
        assert await flow.claim()
        await flow.sql("UPDATE tasks SET lease_expires_at = clock_timestamp() - interval '1 second'")
        await flow.job("sweep-leases")()
    rows = await flow.sql("SELECT status, attempt, error_message FROM tasks")
    assert (rows[0]["status"], rows[0]["attempt"]) == ("failed", 5)


async def test_giving_back_costs_no_retry(flow: Any) -> None:
    await executing(flow, plan_of(1))
    (task,) = await flow.claim()
    attempt = pb.TaskAttempt(task_id=task.task_id, attempt=task.attempt, sandbox_id=task.sandbox_id)
    request = pb.ReleaseTasksRequest(attempts=[attempt], reason="shutting down")
    for _ in range(2):
        answer = await flow.rpc.ReleaseTasks(request, None)
        assert answer.statuses[0].state == pb.ATTEMPT_STATE_LOST
    (again,) = await flow.claim()
    rows = await flow.sql("SELECT retry_count, leases_lost FROM tasks")
    assert (again.attempt, rows[0]["retry_count"], rows[0]["leases_lost"]) == (2, 0, 0)
    assert len(await flow.events("workflow.task.requeued.v1")) == 1


async def test_a_lost_task_holds_what_depends_on_it_and_a_retry_frees_it(flow: Any) -> None:
    plan = (
        "# Held\n## Tasks\n### A: a\n- Retries: 0\n- Command: true\n### B: b\n- Depends: A\n- Command: true\n"
        "### C: c\n- Depends: B\n- Command: true\n### D: d\n- Command: true\n"
    )
    spec = await executing(flow, plan)
    first, other = await flow.claim()
    assert (first.title, other.title) == ("a", "d")
    await flow.fail(first, "boom")
    counts = (await flow.call("GET", f"/specs/{spec['id']}/execution-status"))["status_counts"]
    assert counts == {"pending": 0, "in_progress": 1, "completed": 0, "blocked": 3}
    await flow.call("POST", f"/tasks/{first.task_id}/retry")
    (again,) = await flow.claim()
    assert (again.title, again.attempt) == ("a", 2)
    await flow.complete(again)
    await flow.complete(other)
    for title in ("b", "c"):
        (task,) = await flow.claim()
        assert task.title == title
        await flow.complete(task)
    assert (await flow.call("GET", f"/specs/{spec['id']}"))["status"] == "completed"


async def test_an_execution_ends_when_only_lost_work_is_left_and_can_begin_again(flow: Any) -> None:
    plan = "# Ends\n## Tasks\n### A: a\n- Retries: 0\n- Command: true\n### B: b\n- Depends: A\n- Command: true\n"
    spec = await executing(flow, plan)
    (task,) = await flow.claim()
    await flow.fail(task, "boom")
    found = await flow.call("GET", f"/specs/{spec['id']}")
    assert found["status"] == "failed"
    rows = await flow.sql("SELECT status FROM tasks ORDER BY created_at")
    assert [row["status"] for row in rows] == ["failed", "cancelled"]
    refused = await flow.call("POST", f"/tasks/{task.task_id}/retry", 409)
    assert refused["code"] == "workflow.execution_ended"
    await flow.call("POST", f"/specs/{spec['id']}/execute")
    (again,) = await flow.claim()
    await flow.complete(again)
    (last,) = await flow.claim()
    await flow.complete(last)
    assert (await flow.call("GET", f"/specs/{spec['id']}"))["status"] == "completed"
    assert len(await flow.events("workflow.execution.finished.v1")) == 2
    nothing = await flow.call("POST", f"/specs/{spec['id']}/execute", 409)
    assert nothing["code"] == "workflow.nothing_to_execute"


async def test_pause_lets_running_work_go_on_and_cancel_ends_it(flow: Any) -> None:
    spec = await executing(flow, plan_of(3))
    (running,) = await flow.claim(1)
    paused = await flow.call("POST", f"/specs/{spec['id']}/pause", json={"reason": "lunch"})
    assert paused["status"] == "paused"
    assert await flow.claim() == []
    assert await flow.complete(running) == "completed"
    await flow.call("POST", f"/specs/{spec['id']}/resume")
    (second,) = await flow.claim(1)
    ended = await flow.call("POST", f"/specs/{spec['id']}/cancel", json={"reason": "no longer wanted"})
    assert ended["status"] == "cancelled"
    with pytest.raises(AppError):
        await flow.complete(second)
    beat = await flow.rpc.HeartbeatTasks(
        pb.HeartbeatTasksRequest(
            attempts=[pb.TaskAttempt(task_id=second.task_id, attempt=second.attempt, sandbox_id=second.sandbox_id)]
        ),
        None,
    )
    assert beat.statuses[0].state == pb.ATTEMPT_STATE_CANCELLED
    assert len(await flow.events("workflow.task.cancelled.v1")) == 2
    found = await flow.call("GET", f"/specs/{spec['id']}")
    assert (found["status"], found["execution_status"]) == ("cancelled", "cancelled")
    assert (await flow.call("POST", f"/specs/{spec['id']}/pause", 409))["code"] == "workflow.not_executing"


async def test_a_missed_release_is_repaired(flow: Any) -> None:
    plan = "# Missed\n## Tasks\n### A: a\n- Command: true\n### B: b\n- Depends: A\n- Command: true\n"
    await executing(flow, plan)
    (task,) = await flow.claim()
    await flow.complete(task)
    await flow.sql("UPDATE task_dependencies SET satisfied = false")
    await flow.sql("UPDATE tasks SET unmet_dependencies = 1 WHERE status = 'pending'")
    assert await flow.claim() == []
    await flow.job("repair-releases")()
    assert [one.title for one in await flow.claim()] == ["b"]


async def test_scores_are_kept_fresh_by_the_clock(flow: Any) -> None:
    await executing(flow, plan_of(2))
    await flow.sql(
        "UPDATE tasks SET created_at = created_at - interval '3 hours', rescore_at = clock_timestamp()"
        " WHERE title = 't1'"
    )
    await flow.job("rescore-tasks")()
    rows = await flow.sql("SELECT title, score, rescore_at FROM tasks ORDER BY score DESC")
    assert [row["title"] for row in rows] == ["t1", "t0"]
    assert rows[0]["score"] >= 0.6
    assert rows[0]["rescore_at"] is None, "a starved task changes no more"
    assert [one.title for one in await flow.claim(1)] == ["t1"]


async def test_an_older_sandbox_reports_by_events(flow: Any) -> None:
    from omoios.agents.events.v1 import events_pb2 as agents

    await executing(flow, plan_of(2))
    first, second = await flow.claim()

    def report(task: Any, kind: str, data: bytes = b"{}") -> Any:
        return agents.SandboxLifecycleReported(
            sandbox_id=task.sandbox_id, task_id=task.task_id, attempt=task.attempt, event_type=kind, data_json=data
        )

    done = b'{"validation_passed": true, "turns": 3}'
    await flow.deliver(report(first, "continuous.completed", done), times=2)
    await flow.deliver(report(first, "agent.started"), times=2)
    await flow.deliver(report(second, "agent.started"))
    await flow.deliver(report(second, "agent.failed", b'{"error": "syntax error"}'), times=2)
    states = await flow.sql("SELECT status, result->>'turns' AS turns FROM tasks ORDER BY created_at")
    assert [(row["status"], row["turns"]) for row in states] == [("completed", "3"), ("failed", None)]
    stale = agents.SandboxLifecycleReported(
        sandbox_id=new_id(), task_id=first.task_id, attempt=9, event_type="agent.failed", data_json=b"not json"
    )
    await flow.deliver(stale)


async def test_what_an_older_sandbox_says_of_its_branch_is_checked(flow: Any) -> None:
    from omoios.agents.events.v1 import events_pb2 as agents

    project = await flow.project(repository_url="https://example.com/r.git")
    await flow.deliver(vcs_events.RepositoryReady(project_id=project["id"], default_branch="main", head_sha="f" * 40))
    spec = await flow.spec(project["id"], plan_of(4))
    await flow.call("POST", f"/specs/{spec['id']}/execute")
    tasks = await flow.claim()
    own = [f"omoios-tasks/{one.task_id}/{one.attempt}" for one in tasks]
    said: list[dict[str, Any]] = [
        {"head_sha": "a" * 40, "branch_name": own[0]},
        {"head_sha": "b" * 40, "branch_name": "feature/somebody-else"},
        {"head_sha": "--upload-pack=x", "branch_name": own[2]},
        {},
    ]
    for task, fields in zip(tasks, said, strict=True):
        data = json.dumps({"validation_passed": True} | fields).encode()
        report = agents.SandboxLifecycleReported(
            sandbox_id=task.sandbox_id, task_id=task.task_id, attempt=task.attempt,
            event_type="continuous.completed", data_json=data,
        )  # fmt: skip
        await flow.deliver(report)
    await flow.job("run-merges")()
    (first,) = flow.vcs.merges
    # vcs finishes each branch before it merges it, and knows where those stand of which nothing true was said.
    items = [(one.task_id, one.branch, one.head_sha) for one in first.items]
    assert items == [(tasks[0].task_id, own[0], "a" * 40)]
    await flow.merge_all()
    rows = await flow.sql("SELECT id, merge_state, branch, head_sha FROM tasks")
    found = {row["id"]: tuple(row)[1:] for row in rows}
    heads = ["a" * 40, None, None, None]
    assert found == {task.task_id: ("merged", own[place], heads[place]) for place, task in enumerate(tasks)}
