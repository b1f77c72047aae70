"""Tasks for which no sandbox can be made: tried later and later, visibly, and not for ever."""

from __future__ import annotations

from typing import Any

from omoios.vcs.events.v1 import events_pb2 as vcs_events
from omoios.workflow.v1 import workflow_pb2 as pb

BROKEN = "vcs.repository_failed: The repository could not be mirrored: gone."


async def not_started(flow: Any) -> list[str]:
    """A claim whose sandboxes could not be made; the ids of its tasks."""
    tasks = await flow.claim()
    attempts = [pb.TaskAttempt(task_id=one.task_id, attempt=one.attempt, sandbox_id=one.sandbox_id) for one in tasks]
    request = pb.ReleaseTasksRequest(attempts=attempts, reason=BROKEN, start_failed=True)
    await flow.rpc.ReleaseTasks(request, None)
    return sorted(one.task_id for one in tasks)


async def executing(flow: Any) -> tuple[Any, Any]:
    project = await flow.project(repository_url="https://example.com/r.git")
    ready = vcs_events.RepositoryReady(project_id=project["id"], default_branch="main", head_sha="f" * 40)
    await flow.deliver(ready)
    spec = await flow.spec(project["id"])
    await flow.call("POST", f"/specs/{spec['id']}/execute")
    return ready, spec


async def reasons(flow: Any, task_id: str) -> dict[str, str]:
    found = await flow.call("GET", f"/tasks/{task_id}/readiness")
    return {one["code"]: one["detail"] for one in found["reasons"]}


async def test_a_start_that_failed_waits_longer_each_time_and_says_why(flow: Any) -> None:
    ready, _ = await executing(flow)
    first = await not_started(flow)
    assert first
    assert await flow.claim() == [], "not handed out again at once"
    said = (await reasons(flow, first[0]))["start_failed"]
    assert BROKEN in said
    pauses = []
    for _ in range(3):
        (row,) = await flow.sql("SELECT extract(epoch FROM not_before - now()) AS s FROM tasks WHERE id = $1", first[0])
        pauses.append(float(row["s"]))
        await flow.sql("UPDATE tasks SET not_before = now() WHERE id = ANY($1)", first)
        assert await not_started(flow) == first
    assert pauses[0] < pauses[1] < pauses[2]
    # The repository works again: nobody waits for the end of the pause.
    await flow.deliver(ready)
    assert "start_failed" not in await reasons(flow, first[0])
    tasks = await flow.claim()
    assert sorted(one.task_id for one in tasks) == first
    await flow.start(tasks[0])
    (row,) = await flow.sql("SELECT start_failures, start_error FROM tasks WHERE id = $1", tasks[0].task_id)
    assert tuple(row) == (0, None)


async def test_it_fails_in_the_end_and_can_be_tried_again(flow: Any) -> None:
    _, spec = await executing(flow)
    first = await not_started(flow)
    await flow.sql("UPDATE tasks SET not_before = NULL, start_failures = 19 WHERE id = ANY($1)", first)
    assert await not_started(flow) == first
    task = await flow.call("GET", f"/tasks/{first[0]}")
    assert task["status"] == "failed"
    assert "20 times in a row" in task["error_message"]
    assert BROKEN in task["error_message"]
    assert (await flow.call("GET", f"/specs/{spec['id']}/execution-status"))["execution_status"] == "failed"
    await flow.call("POST", f"/specs/{spec['id']}/execute")
    assert sorted(one.task_id for one in await flow.claim()) == first


async def test_an_execution_says_that_its_repository_failed_and_goes_on_when_it_is_tried_again(flow: Any) -> None:
    project = await flow.project(repository_url="https://example.com/r.git")
    await flow.job("bind-repositories")()
    spec = await flow.spec(project["id"])
    await flow.call("POST", f"/specs/{spec['id']}/execute")
    status = f"/specs/{spec['id']}/execution-status"
    assert (await flow.call("GET", status))["blocked_reason"] is None, "it may still become ready"
    await flow.deliver(vcs_events.RepositoryFailed(project_id=project["id"], error="no such host."))
    found = await flow.call("GET", status)
    assert found["execution_status"] == "executing"
    said = "The project's repository could not be mirrored: no such host. Naming its repository_url again"
    assert found["blocked_reason"].startswith(said)
    (task, *_) = await flow.call("GET", "/tasks")
    assert (await reasons(flow, task["id"]))["repository_not_ready"].startswith(said)
    assert await flow.claim() == []
    await flow.call("PATCH", f"/projects/{project['id']}", json={"repository_url": "https://example.com/r.git"})
    assert (await flow.call("GET", status))["blocked_reason"] is None
    await flow.job("bind-repositories")()
    await flow.deliver(
        vcs_events.RepositoryReady(project_id=project["id"], default_branch="main", head_sha="f" * 40), version=2
    )
    assert (await flow.call("GET", status))["blocked_reason"] is None
    assert len(await flow.claim()) == 2
