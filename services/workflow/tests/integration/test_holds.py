"""What holds a task is true at each moment, whoever makes, blocks, deletes or archives at the same time."""

from __future__ import annotations

import asyncio
from typing import Any

from omoios.workflow.events.v1 import events_pb2 as own
from servicekit.ids import new_id
from workflow_service.queue import store


async def project_of(flow: Any, **fields: Any) -> Any:
    project = await flow.project(**fields)
    return await flow.call("PATCH", f"/projects/{project['id']}", json={"autonomous_execution_enabled": True})


async def ticket_of(flow: Any, project: Any, **fields: Any) -> Any:
    body = {"project_id": project["id"], "title": f"t {new_id()[-8:]}", "workflow_mode": "quick"}
    return await flow.call("POST", "/tickets", json=body | fields)


async def gated(flow: Any, project: Any) -> Any:
    """A ticket that waits for an approval, with a task."""
    settings = flow.running.service.settings
    object.__setattr__(settings, "ticket_human_review", True)
    ticket = await ticket_of(flow, project)
    object.__setattr__(settings, "ticket_human_review", False)
    spawned = await flow.call("POST", f"/tickets/{ticket['id']}/spawn-phase-tasks")
    return ticket, spawned["task_ids"][0]


async def task_of(flow: Any, ticket: Any) -> str:
    (task,) = await flow.call("GET", f"/tasks?ticket_id={ticket['id']}")
    return str(task["id"])


async def reasons(flow: Any, task_id: str) -> set[str]:
    found = await flow.call("GET", f"/tasks/{task_id}/readiness")
    assert found["ready"] == (found["reasons"] == [])
    return {one["code"] for one in found["reasons"]}


async def test_what_waits_for_a_refused_ticket_goes_on(flow: Any) -> None:
    project = await project_of(flow)
    for kept in (False, True):
        refused, _ = await gated(flow, project)
        waiting = await ticket_of(flow, project, dependencies={"blocked_by": [refused["id"]]})
        task = await task_of(flow, waiting)
        assert await reasons(flow, task) == {"ticket_waits"}
        object.__setattr__(flow.running.service.settings, "on_reject", "archive" if kept else "delete")
        body = {"ticket_id": refused["id"], "rejection_reason": "no"}
        await flow.call("POST", "/tickets/reject", json=body)
        await flow.call("GET", f"/tickets/{refused['id']}", 200 if kept else 404)
        assert [one.task_id for one in await flow.claim()] == [task]


async def test_a_dependency_on_the_work_of_a_deleted_ticket_ends_with_it(flow: Any) -> None:
    project = await project_of(flow)
    refused, gone = await gated(flow, project)
    waiting, other = await ticket_of(flow, project), await ticket_of(flow, project)
    task, before = await task_of(flow, waiting), await task_of(flow, other)
    await flow.call("POST", f"/tasks/{task}/dependencies", json={"depends_on": [gone, before]})
    await flow.sql("UPDATE tickets SET approval_deadline_at = clock_timestamp() - interval '1 second'")
    await flow.job("expire-approvals")()
    await flow.call("GET", f"/tickets/{refused['id']}", 404)
    assert await reasons(flow, task) == {"dependency_not_completed"}
    changed = own.TaskDependenciesChanged.FromString(
        (await flow.events("workflow.task.dependencies_changed.v1"))[-1]["payload"]
    )
    assert (changed.task.task_id, list(changed.removed), list(changed.depends_on)) == (task, [gone], [before])
    # Whoever keeps a copy of the task learns that it is over.
    assert [row["aggregate_id"] for row in await flow.events("workflow.task.cancelled.v1")] == [gone]
    (claimed,) = await flow.claim()
    assert claimed.task_id == before
    await flow.start(claimed)
    await flow.complete(claimed)
    assert [one.task_id for one in await flow.claim()] == [task]


async def test_who_changes_a_cause_waits_for_tasks_that_are_being_made(flow: Any, monkeypatch: Any) -> None:
    project = await project_of(flow)
    ticket = await ticket_of(flow, project)
    path = f"/projects/{project['id']}"
    causes = {
        "ticket_blocked": ("POST", f"/tickets/{ticket['id']}/block?blocker_type=waiting_on_clarification", None),
        "project_not_active": ("PATCH", path, {"status": "paused"}),
    }
    real = store.add_all
    for code, (method, where, change) in causes.items():
        go_on, reached = asyncio.Event(), asyncio.Event()

        async def slow(tx: Any, rows: Any, go_on: asyncio.Event = go_on, reached: asyncio.Event = reached) -> Any:
            if rows[0]["task_type"] != "slow":
                return await real(tx, rows)
            reached.set()
            await go_on.wait()
            return await real(tx, rows)

        monkeypatch.setattr(store, "add_all", slow)
        body = {"ticket_id": ticket["id"], "title": code, "description": "d", "task_type": "slow"}
        making = asyncio.create_task(flow.call("POST", "/tasks", 201, json=body))
        await reached.wait()
        changing = asyncio.create_task(flow.call(method, where, json=change))
        # It waits for the lock, or it is through already, as it must not be.
        waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        for _ in range(1_000):
            if changing.done() or await flow.sql(waits):
                break
            await asyncio.sleep(0.01)
        go_on.set()
        made = await making
        await changing
        assert code in await reasons(flow, made["id"])


async def test_holds_without_a_cause_and_causes_without_a_hold_are_repaired(flow: Any) -> None:
    project = await project_of(flow)
    held, slipped, ended = [await ticket_of(flow, project) for _ in range(3)]
    tasks = [await task_of(flow, one) for one in (held, slipped, ended)]
    await flow.call("POST", f"/tickets/{slipped['id']}/block?blocker_type=waiting_on_clarification")
    await flow.call("POST", f"/tasks/{tasks[2]}/cancel", json={})
    await flow.sql("UPDATE tasks SET holds = 4 | 64 | 128 | 256 | 32 WHERE id = $1", tasks[0])
    await flow.sql("UPDATE tasks SET holds = 0 WHERE id = $1", tasks[1])
    await flow.sql("UPDATE tasks SET holds = 8 WHERE id = $1", tasks[2])
    assert await flow.job("repair-holds")() == 2
    holds = {row["id"]: row["holds"] for row in await flow.sql("SELECT id, holds FROM tasks")}
    # The remedy of a blocked ticket runs; what is no matter of project or ticket stays, and so does what has ended.
    assert [holds.pop(one) for one in tasks] == [32, 8, 8]
    assert list(holds.values()) == [0]
    assert await flow.job("repair-holds")() == 0


async def test_work_of_linked_tickets_shares_the_fate_of_the_spec(flow: Any) -> None:
    project = await project_of(flow)
    spec, other = await flow.spec(project["id"]), await flow.spec(project["id"], None, title="Other")
    (planned, *_) = (await flow.call("GET", f"/specs/{spec['id']}/linked-tickets"))["tickets"]
    taken = await flow.call("POST", f"/specs/{other['id']}/link-tickets", json={"ticket_ids": [planned["id"]]})
    assert (taken["linked_count"], taken["ticket_ids"]) == (0, []), "a plan's ticket stays with its spec"
    ticket = await ticket_of(flow, project)
    links = {"ticket_ids": [ticket["id"]]}
    task = await task_of(flow, ticket)
    assert (await flow.call("POST", f"/specs/{spec['id']}/link-tickets", json=links))["linked_count"] == 1
    await flow.call("DELETE", f"/specs/{spec['id']}")
    late = {"ticket_id": ticket["id"], "title": "late", "description": "d"}
    added = await flow.call("POST", "/tasks", 201, json=late)
    assert await reasons(flow, task) == await reasons(flow, added["id"]) == {"spec_archived"}
    assert await flow.call("GET", f"/tasks?ticket_id={ticket['id']}") == []
    assert (await flow.claim(), await flow.job("repair-holds")()) == ([], 0)
    await flow.call("POST", f"/specs/{spec['id']}/unlink-tickets", json=links)
    shown = (await flow.call("GET", f"/tickets?project_id={project['id']}"))["tickets"]
    assert [one["id"] for one in shown] == [ticket["id"]]
    assert len(await flow.call("GET", f"/tasks?ticket_id={ticket['id']}")) == 2
    assert {one.task_id for one in await flow.claim()} == {task, added["id"]}


async def test_a_cancelled_task_does_not_keep_its_ticket_open(flow: Any) -> None:
    project = await project_of(flow)
    for last in ("completed", "cancelled"):
        ticket = await ticket_of(flow, project)
        dropped = await task_of(flow, ticket)
        more = {"ticket_id": ticket["id"], "title": "more", "description": "d"}
        kept = (await flow.call("POST", "/tasks", 201, json=more))["id"]
        if last == "completed":
            await flow.call("POST", f"/tasks/{dropped}/cancel", json={})
        claimed = next(one for one in await flow.claim() if one.task_id == kept)
        await flow.start(claimed)
        await flow.complete(claimed)
        if last == "cancelled":
            assert (await flow.call("GET", f"/tickets/{ticket['id']}"))["status"] == "building"
            await flow.call("POST", f"/tasks/{dropped}/cancel", json={})
        assert (await flow.call("GET", f"/tickets/{ticket['id']}"))["status"] == "done"
