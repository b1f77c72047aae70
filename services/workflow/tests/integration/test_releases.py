"""Tasks that are given back: at once the first times, later and later after them, and not for ever."""

from __future__ import annotations

from typing import Any

from omoios.workflow.v1 import workflow_pb2 as pb

GOING = "the runner is going away"


async def forced(flow: Any) -> str:
    """A task that may be claimed."""
    project = await flow.project()
    ticket = await flow.call("POST", "/tickets", json={"project_id": project["id"], "title": "One"})
    body = {
        "ticket_id": ticket["id"], "task_type": "implement_feature", "title": "Do", "description": "Do it",
        "phase_id": "PHASE_IMPLEMENTATION", "execution_config": {"force_execute": True},
    }  # fmt: skip
    return str((await flow.call("POST", "/tasks", 201, json=body))["id"])


async def given_back(flow: Any, *, started: bool = False, held_s: int = 0) -> None:
    (task,) = await flow.claim()
    if started:
        await flow.start(task)
    await flow.sql(
        "UPDATE tasks SET claimed_at = claimed_at - make_interval(secs => $2) WHERE id = $1", task.task_id, held_s
    )
    ref = pb.TaskAttempt(task_id=task.task_id, attempt=task.attempt, sandbox_id=task.sandbox_id)
    await flow.rpc.ReleaseTasks(pb.ReleaseTasksRequest(attempts=[ref], reason=GOING), None)


async def test_a_task_that_is_given_back_waits_longer_each_time_after_the_first_ones(flow: Any) -> None:
    task_id = await forced(flow)
    for round_ in range(5):
        # Runners that stop give back what runs there: the next one takes it at once.
        await given_back(flow, started=round_ % 2 == 0)
    pauses = []
    for _ in range(4):
        await given_back(flow)
        assert await flow.claim() == [], "not handed out again at once"
        found = await flow.call("GET", f"/tasks/{task_id}/readiness")
        assert [one["code"] for one in found["reasons"]] == ["released"]
        (row,) = await flow.sql(
            "SELECT extract(epoch FROM not_before - updated_at) AS s FROM tasks WHERE id = $1", task_id
        )
        pauses.append(float(row["s"]))
        await flow.sql("UPDATE tasks SET not_before = now() WHERE id = $1", task_id)
    assert pauses == sorted(pauses)
    assert 1 < pauses[0] < 3 < pauses[-1] < 21
    # An attempt that worked for long before its runner stopped is no part of a circle.
    await given_back(flow, started=True, held_s=600)
    await given_back(flow)


async def test_a_task_that_is_given_back_for_ever_fails_and_says_why(flow: Any) -> None:
    task_id = await forced(flow)
    await flow.sql("UPDATE tasks SET releases = 49")
    await given_back(flow)
    task = await flow.call("GET", f"/tasks/{task_id}")
    assert task["status"] == "failed"
    assert task["error_message"] == f"The task was given back 50 times in a row: {GOING}"
    await flow.call("POST", f"/tasks/{task_id}/retry")
    await given_back(flow)
    assert len(await flow.claim()) == 1, "a retry counts from the start"
