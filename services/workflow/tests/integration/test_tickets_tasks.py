"""Tickets and tasks through the HTTP edge, with their errors."""

from __future__ import annotations

from typing import Any

from omoios.workflow.events.v1 import events_pb2 as own
from servicekit.ids import new_id
from workflow_service.main import build


async def ticket_of(flow: Any, project: Any, title: str = "One", **fields: Any) -> Any:
    body = {"title": title, "project_id": project["id"], "phase_id": "PHASE_BACKLOG"} | fields
    return await flow.call("POST", "/tickets", json=body)


async def test_tickets(flow: Any) -> None:
    project = await flow.project()
    ticket = await ticket_of(flow, project, "Fix Login", description="It 100% fails", priority="high")
    assert (ticket["status"], ticket["priority"], ticket["approval_status"]) == ("backlog", "HIGH", "approved")
    (task,) = await flow.call("GET", f"/tasks?ticket_id={ticket['id']}")
    assert task["task_type"] == "analyze_requirements"
    reasons = (await flow.call("GET", f"/tasks/{task['id']}/readiness"))["reasons"]
    assert [one["code"] for one in reasons] == ["not_autonomous"]
    same = await ticket_of(flow, project, " fix  login ", description="it 100% FAILS")
    assert (same["is_duplicate"], same["candidates"][0]["ticket_id"]) == (True, ticket["id"])
    forced = await ticket_of(flow, project, "Fix Login", description="It 100% fails", force_create=True)
    check = await flow.call(
        "POST", "/tickets/check-duplicates", json={"title": "Fix Login", "description": "It 100% fails"}
    )
    assert len(check["candidates"]) == 2
    found = await flow.call("GET", "/tickets?search=100%25")
    assert (found["total"], {one["id"] for one in found["tickets"]}) == (2, {ticket["id"], forced["id"]})
    assert (await flow.call("GET", "/tickets?search=0%25%20f&priority=LOW"))["total"] == 0
    assert (await flow.call("GET", "/tickets/list?status=backlog&limit=1"))["total"] == 2
    path = f"/tickets/{ticket['id']}"
    await flow.call("PATCH", path, json={"title": "Fix the login", "status": "analyzing"})
    refused = await flow.call("POST", f"{path}/transition", 400, json={"to_status": "testing"})
    assert refused["code"] == "workflow.transition_refused"
    assert "building" in refused["detail"]
    blocked = await flow.call("POST", f"{path}/block?blocker_type=environment&suggested_remediation=Restart")
    assert (blocked["is_blocked"], blocked["blocked_reason"]) == (True, "environment")
    codes = [one["code"] for one in (await flow.call("GET", f"/tasks/{task['id']}/readiness"))["reasons"]]
    assert codes == ["ticket_blocked", "not_autonomous"]
    kinds = {one["task_type"] for one in await flow.call("GET", f"/tasks?ticket_id={ticket['id']}")}
    assert kinds == {"analyze_requirements", "remediation"}
    await flow.call("POST", f"{path}/block?blocker_type=environment")
    await flow.call("POST", f"{path}/block?blocker_type=mood", 422)
    moved = await flow.call("POST", f"{path}/transition", json={"to_status": "building"})
    assert (moved["is_blocked"], moved["status"], moved["phase_id"]) == (False, "building", "PHASE_IMPLEMENTATION")
    assert (await flow.call("POST", f"{path}/unblock"))["status"] == "building"
    for status in ("building-done", "testing"):
        await flow.call("POST", f"{path}/transition", json={"to_status": status})
    back = await flow.call("POST", f"{path}/regress?to_status=building&validation_feedback=red")
    assert (back["status"], back["context"]["regressions"][0]["validation_feedback"]) == ("building", "red")
    await flow.call("POST", f"{path}/regress?to_status=backlog", 400)
    assert (await flow.call("POST", f"{path}/progress")) == {"status": "no_progression"}
    history = await flow.sql("SELECT count(*) AS n FROM phase_history WHERE ticket_id = $1", ticket["id"])
    assert history[0]["n"] == len(await flow.events("workflow.ticket.transitioned.v1")) == 5
    await flow.call("GET", "/tickets/not-a-uuid", 422)
    await flow.call("POST", "/tickets", 422, json={"title": "No project"})
    await flow.call("POST", "/tickets", 422, json={"title": "x", "project_id": project["id"], "priority": "urgent"})
    of_repository = {"title": "By repository", "github_owner": "acme", "github_repo": "app"}
    first = await flow.call("POST", "/tickets", json=of_repository)
    second = await flow.call("POST", "/tickets", json=of_repository | {"title": "Another"})
    assert first["project_id"] == second["project_id"]


async def test_tickets_wait_for_tickets(flow: Any) -> None:
    project = await flow.project(settings={})
    await flow.call("PATCH", f"/projects/{project['id']}", json={"autonomous_execution_enabled": True})
    before = await ticket_of(flow, project, "Before")
    after = await ticket_of(flow, project, "After", dependencies={"blocked_by": [before["id"]]})
    (task,) = await flow.call("GET", f"/tasks?ticket_id={after['id']}")
    reasons = (await flow.call("GET", f"/tasks/{task['id']}/readiness"))["reasons"]
    assert [one["code"] for one in reasons] == ["ticket_waits"]
    assert [one.ticket_id for one in await flow.claim()] == [before["id"]]
    await flow.call("POST", f"/tickets/{before['id']}/complete?force=true")
    assert [one.ticket_id for one in await flow.claim()] == [after["id"]]
    foreign = {"title": "x", "project_id": project["id"], "dependencies": {"blocks": [new_id()]}}
    await flow.call("POST", "/tickets", 422, json=foreign)


async def test_the_approval_gate(service_host: Any, signing: Any, rpc_stub: Any, flow: Any) -> None:
    project = await flow.project()
    url = flow.running.service.settings.database_url
    gated = await service_host(build, "workflow", database_url=url, ticket_human_review=True, on_reject="archive")
    body = {"title": "Gated", "project_id": project["id"], "workflow_mode": "quick"}
    made = [
        (await gated.http.post("/api/v1/tickets", json=body | {"title": f"Gated {n}"}, headers=flow.headers)).json()
        for n in range(3)
    ]
    assert [one["approval_status"] for one in made] == ["pending_review"] * 3
    assert await flow.call("GET", "/tasks") == []
    assert (await flow.call("GET", "/tickets/pending-review-count"))["pending_count"] == 3
    early = {"ticket_id": made[0]["id"], "title": "t", "description": "d"}
    assert (await flow.call("POST", "/tasks", 409, json=early))["code"] == "workflow.ticket_not_approved"
    member = await flow.headers_of("member")
    approve = {"ticket_id": made[0]["id"]}
    await flow.call("POST", "/tickets/approve", 403, json=approve, headers=member)
    assert (await flow.call("POST", "/tickets/approve", json=approve))["status"] == "approved"
    assert (await flow.call("POST", "/tickets/approve", 400, json=approve))["code"] == "workflow.ticket_not_pending"
    assert [one.task_type for one in await flow.claim()] == ["implement_feature"], "quick work begins as it was asked"
    reject = {"ticket_id": made[1]["id"], "rejection_reason": "no"}
    response = await gated.http.post("/api/v1/tickets/reject", json=reject, headers=flow.headers)
    assert response.json() == {"ticket_id": made[1]["id"], "status": "rejected"}
    status = await flow.call("GET", f"/tickets/approval-status?ticket_id={made[1]['id']}")
    assert (status["approval_status"], status["rejection_reason"]) == ("rejected", "no")
    await flow.sql("UPDATE tickets SET approval_deadline_at = clock_timestamp() - interval '1 second'")
    await flow.job("expire-approvals")()
    await flow.call("GET", f"/tickets/{made[2]['id']}", 404)
    changes = [
        own.TicketApprovalChanged.FromString(row["payload"])
        for row in await flow.events("workflow.ticket.approval_changed.v1")
    ]
    told = [(one.approval_status, one.deleted) for one in changes]
    assert told[-3:] == [("approved", False), ("rejected", False), ("timed_out", True)]


async def test_who_asked_for_a_ticket_approves_it_only_where_nobody_else_may(flow: Any) -> None:
    project = await flow.project()
    made = [await ticket_of(flow, project, f"Gated {n}") for n in range(3)]
    alone, shared, left = ({"ticket_id": one["id"]} for one in made)
    await flow.sql("UPDATE tickets SET approval_status = 'pending_review'")
    # A member may not approve, so the owner is still the only one who can.
    await flow.headers_of("member")
    await flow.call("POST", "/tickets/approve", json=alone)
    admin = await flow.headers_of("admin")
    refused = await flow.call("POST", "/tickets/approve", 403, json=shared)
    assert refused["code"] == "workflow.own_approval"
    await flow.call("POST", "/tickets/approve", json=shared, headers=admin)
    # To withdraw one's own needs nobody else.
    await flow.call("POST", "/tickets/reject", json=left | {"rejection_reason": "not needed"})


async def test_tasks(flow: Any) -> None:
    project = await flow.project()
    await flow.call("PATCH", f"/projects/{project['id']}", json={"autonomous_execution_enabled": True})
    ticket = await ticket_of(flow, project)
    (first,) = await flow.call("GET", f"/tasks?ticket_id={ticket['id']}")

    async def add(title: str, status: int = 201, **fields: Any) -> Any:
        body = {"ticket_id": ticket["id"], "title": title, "description": "d"} | fields
        return await flow.call("POST", "/tasks", status, json=body)

    second = await add("second", dependencies={"depends_on": [first["id"], first["id"]]}, priority="critical")
    third = await add("third", dependencies={"depends_on": [second["id"]]}, phase_id="PHASE_INTEGRATION")
    assert (second["priority"], third["phase_id"]) == ("CRITICAL", "PHASE_TESTING")
    assert (await add("x", 404, dependencies={"depends_on": ["none"]}))["code"] == "workflow.dependency_not_found"
    await add("x", 422, phase_id="PHASE_NONE")
    await add("x", 422, timeout_seconds=0)
    shown = await flow.call("GET", f"/tasks/{second['id']}/dependencies")
    assert (shown["depends_on"], shown["dependencies_complete"]) == ([first["id"]], False)
    assert [one["id"] for one in shown["blocked_tasks"]] == [third["id"]]
    circular = await flow.call("POST", f"/tasks/{first['id']}/check-circular", json=[third["id"]])
    assert circular["has_circular_dependency"]
    assert set(circular["cycle"]) == {first["id"], second["id"], third["id"]}
    itself = await flow.call("POST", f"/tasks/{first['id']}/check-circular", json=[first["id"]])
    assert itself == {"has_circular_dependency": True, "cycle": [first["id"]]}
    path = f"/tasks/{first['id']}/dependencies"
    assert (await flow.call("POST", path, 400, json={"depends_on": [third["id"]]}))[
        "code"
    ] == "workflow.dependency_cycle"
    assert (await flow.call("DELETE", f"{path}/{third['id']}", 400))["code"] == "workflow.no_dependencies"
    path = f"/tasks/{third['id']}/dependencies"
    both = await flow.call("POST", path, json={"depends_on": [first["id"]]})
    assert both["depends_on"] == sorted([first["id"], second["id"]])
    await flow.call("DELETE", f"{path}/{first['id']}")
    await flow.call("DELETE", f"{path}/{first['id']}", 404)
    assert (await flow.call("PUT", path, json={"depends_on": []}))["dependencies_complete"]
    assert [one.task_id for one in await flow.claim(1)] == [first["id"]], "older and as important as the third"
    codes = {one["code"] for one in (await flow.call("GET", f"/tasks/{second['id']}/readiness"))["reasons"]}
    assert codes == {"dependency_not_completed"}
    fixed = await flow.call("POST", f"/tasks/{first['id']}/dependencies", 409, json={"depends_on": []})
    assert fixed["code"] == "workflow.dependencies_fixed"
    patched = await flow.call("PATCH", f"/tasks/{third['id']}", json={"title": "renamed", "status": "cancelled"})
    assert (patched["title"], patched["status"]) == ("renamed", "cancelled")
    assert (await flow.call("PATCH", f"/tasks/{third['id']}", json={"status": "pending"}))["status"] == "pending"
    refused = await flow.call("PATCH", f"/tasks/{third['id']}", 400, json={"status": "completed"})
    assert refused["code"] == "workflow.task_transition_refused"
    await flow.call("PATCH", f"/tasks/{third['id']}", 422, json={"status": "sleeping"})
    assert (await flow.call("POST", f"/tasks/{first['id']}/set-timeout", json={"timeout_seconds": 60}))[
        "status"
    ] == "assigned"
    status = await flow.call("GET", f"/tasks/{first['id']}/timeout-status")
    assert (status["exists"], status["timeout_seconds"], status["is_timed_out"]) == (True, 60, False)
    assert [one["id"] for one in await flow.call("GET", "/tasks/cancellable")] == [first["id"]]
    conversation = {"conversation_id": "c-1", "sandbox_id": ""}
    assert (await flow.call("POST", f"/tasks/{first['id']}/register-conversation", json=conversation))["success"]
    cancelled = await flow.call("POST", f"/tasks/{first['id']}/cancel", json={"reason": "stop"})
    assert cancelled == {"task_id": first["id"], "cancelled": True, "reason": "stop"}
    assert (await flow.call("POST", f"/tasks/{first['id']}/cancel", 404, json={}))[
        "code"
    ] == "workflow.task_not_cancellable"
    event = own.TaskCancelled.FromString((await flow.events("workflow.task.cancelled.v1"))[-1]["payload"])
    assert (event.task.task_id, event.attempt, bool(event.sandbox_id)) == (first["id"], 1, True)
    failed = await flow.call("POST", f"/tasks/{second['id']}/fail")
    assert (failed["status"], failed["old_status"], failed["reason"]) == ("failed", "pending", "marked_failed_by_user")
    assert (await flow.call("POST", f"/tasks/{second['id']}/fail", 400))["code"] == "workflow.task_ended"
    assert (await flow.call("POST", f"/tasks/{third['id']}/retry", 409))["code"] == "workflow.task_not_retryable"
    assert (await flow.call("POST", f"/tasks/{first['id']}/retry"))["status"] == "pending"
    filtered = await flow.call("GET", "/tasks?status=failed&has_sandbox=false")
    assert [one["id"] for one in filtered] == [second["id"]]
