"""Every operation as a stranger, from another organization, with a role too low, and with the right one."""

from __future__ import annotations

import re
from typing import Any

import pytest

from servicekit.ids import new_id
from workflow_service.access import ACCESS

# Operations that need no row of an organization: the registries of phases and columns, and lists of one's own rows.
OWN = {
    "phases.list_phases",
    "phases.get_phase",
    "board.get_column_of_phase",
    "projects.list_projects",
    "projects.create_project",
    "tickets.list_tickets",
    "tickets.list_tickets_alias",
    "tickets.count_pending_reviews",
    "tickets.check_duplicate_tickets",
    "tasks.list_tasks",
    "tasks.list_timed_out_tasks",
    "tasks.list_cancellable_tasks",
    "tasks.clean_up_timed_out_tasks",
    "board.view_board",
    "board.get_board_stats",
    "board.list_wip_violations",
}
# A conflict or a refusal by the state of the row is an answer of the operation itself: access was granted.
GRANTED = {200, 201, 400, 402, 404, 409}


def operations(flow: Any) -> list[tuple[str, str, str]]:
    found = []
    for route in flow.running.app.routes:
        operation = getattr(route, "operation", None)
        if operation is not None and operation.id in ACCESS.operations:
            found += [(operation.id, method, route.path) for method in route.methods if method != "HEAD"]
    return found


BODIES: dict[str, dict[str, Any]] = {
    "projects.update_project": {"description": "changed"},
    "specs.update_spec": {"description": "changed"},
    "tickets.update_ticket": {"description": "changed"},
    "tickets.transition_ticket": {"to_status": "analyzing"},
    "phases.transition_phase": {"to_phase": "PHASE_REQUIREMENTS"},
    "phases.add_artifact": {"phase_id": "PHASE_TESTING", "artifact_type": "test_results"},
    "specs.add_requirement": {"title": "new", "condition": "asked", "action": "answer"},
    "specs.update_requirement": {"title": "changed"},
    "specs.add_criterion": {"text": "new"},
    "specs.update_criterion": {"completed": True},
    "specs.set_design": {"architecture": "changed"},
    "specs.add_spec_task": {"title": "new"},
    "specs.update_spec_task": {"title": "changed"},
    "specs.link_tickets": {"ticket_ids": []},
    "specs.unlink_tickets": {"ticket_ids": []},
    "tasks.update_task": {"description": "changed"},
    "tasks.add_task_dependencies": {"depends_on": []},
    "tasks.set_task_dependencies": {"depends_on": []},
    "tasks.set_task_timeout": {"timeout_seconds": 60},
    "tasks.register_conversation": {"conversation_id": "c-1"},
}
QUERIES = {
    "tickets.block_ticket": {"blocker_type": "dependency"},
    "tickets.regress_ticket": {"to_status": "analyzing"},
}


async def rows_of(flow: Any) -> dict[str, str]:
    project = await flow.project()
    spec = await flow.spec(project["id"])
    ticket = await flow.call(
        "POST", "/tickets", json={"title": "One", "project_id": project["id"], "phase_id": "PHASE_BACKLOG"}
    )
    tasks = await flow.call("GET", f"/tasks?ticket_id={ticket['id']}")
    requirement = spec["requirements"][0]
    result = await flow.call(
        "POST", "/submit_result", json={"workflow_id": ticket["id"], "markdown_file_path": "result.md"}
    )
    return {
        "project_id": project["id"],
        "spec_id": spec["id"],
        "ticket_id": ticket["id"],
        "task_id": tasks[0]["id"],
        "depends_on_task_id": tasks[0]["id"],
        "phase_id": "PHASE_TESTING",
        "to_phase": "PHASE_REQUIREMENTS",
        "req_id": requirement["id"],
        "criterion_id": requirement["criteria"][0]["id"],
        "workflow_id": ticket["id"],
        "spec_task_id": spec["tasks"][0]["id"],
        "result_id": result["result_id"],
    }


def body_of(operation: str, rows: dict[str, str], organization: str) -> Any:
    if operation == "tasks.check_circular_dependency":
        return []
    per_row = {
        "projects.create_project": {"organization_id": organization, "name": f"new {new_id()}"},
        "specs.create_spec": {"project_id": rows["project_id"], "title": "Another"},
        "tickets.create_ticket": {"title": f"new {new_id()}", "project_id": rows["project_id"]},
        "tickets.check_duplicate_tickets": {"title": "One"},
        "tickets.approve_ticket": {"ticket_id": rows["ticket_id"]},
        "tickets.reject_ticket": {"ticket_id": rows["ticket_id"], "rejection_reason": "no"},
        "board.move_ticket": {"ticket_id": rows["ticket_id"], "target_column_id": "analyzing"},
        "results.report_results": {
            "task_id": rows["task_id"],
            "markdown_file_path": "report.md",
            "result_type": "test",
            "summary": "all passed",
        },
        "results.submit_result": {"workflow_id": rows["ticket_id"], "markdown_file_path": "result.md"},
        "results.validate_result": {
            "result_id": rows["result_id"],
            "validation_passed": False,
            "feedback": "not yet",
        },
        "tasks.create_task": {"ticket_id": rows["ticket_id"], "title": "new", "description": "new"},
    }
    return per_row.get(operation, BODIES.get(operation))


async def send(flow: Any, operation: str, method: str, path: str, rows: dict[str, str], headers: Any) -> Any:
    places = rows | ({"task_id": rows["spec_task_id"]} if operation.startswith("specs.") else {})
    url = re.sub(r"{(\w+)}", lambda match: places[match[1]], path)
    query = dict(QUERIES.get(operation, {}))
    if operation == "tickets.get_approval_status":
        query = {"ticket_id": rows["ticket_id"]}
    body = body_of(operation, rows, flow.organization)
    return await flow.http.request(method, url, params=query, json=body, headers=headers or {})


async def test_every_operation_by_everyone(flow: Any) -> None:
    rows = await rows_of(flow)
    known = operations(flow)
    assert {one[0] for one in known} == set(ACCESS.operations)
    viewer, member = await flow.headers_of("viewer"), await flow.headers_of("member")
    stranger = await flow.headers_of("owner", new_id())
    wrong: list[str] = []
    # Archiving and ending come last, so that the others still find their rows.
    order = sorted(known, key=lambda one: (one[1] == "DELETE", "cancel" in one[0] or "fail" in one[0], one[0]))
    for operation, method, path in order:
        permission = ACCESS.operations[operation].permission or ""
        answers = {
            "anonymous": await send(flow, operation, method, path, rows, None),
            "stranger": await send(flow, operation, method, path, rows, stranger),
            "viewer": await send(flow, operation, method, path, rows, viewer),
        }
        if answers["anonymous"].status_code != 401:
            wrong.append(f"{operation} by nobody: {answers['anonymous'].status_code}")
        if operation not in OWN and answers["stranger"].status_code != 404:
            wrong.append(f"{operation} by a stranger: {answers['stranger'].status_code} {answers['stranger'].text}")
        if permission.endswith(":write") and operation not in OWN and answers["viewer"].status_code != 403:
            wrong.append(f"{operation} by a viewer: {answers['viewer'].status_code} {answers['viewer'].text}")
        if permission.endswith(":read") and answers["viewer"].status_code not in GRANTED:
            wrong.append(f"{operation} by a viewer: {answers['viewer'].status_code} {answers['viewer'].text}")
        right = flow.headers if operation in ("tickets.approve_ticket", "tickets.reject_ticket") else member
        answer = await send(flow, operation, method, path, rows, right)
        if answer.status_code not in GRANTED:
            wrong.append(f"{operation} by a member: {answer.status_code} {answer.text}")
    assert wrong == []


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/projects/project-none", "workflow.project_not_found"),
        ("/specs/spec-none", "workflow.spec_not_found"),
        ("/tasks/none", "workflow.task_not_found"),
        ("/tickets/01890a5d-ac96-774b-bcce-b302099a8057", "workflow.ticket_not_found"),
        ("/configs/PHASE_NONE", "workflow.phase_not_found"),
        ("/board/column/PHASE_NONE", "workflow.board_column_not_found"),
    ],
)
async def test_unknown_rows_are_not_found(flow: Any, assert_problem: Any, path: str, code: str) -> None:
    assert_problem(await flow.http.get(f"/api/v1{path}", headers=flow.headers), 404, code)


async def test_a_sandbox_sees_its_own_task_only(flow: Any) -> None:
    rows = await rows_of(flow)
    other = await rows_of(flow)
    token = flow.signing.sandbox(flow.organization, "sandbox-1", task_id=rows["task_id"], agent_id="agent-1")
    headers = {"Authorization": f"Bearer {token}"}
    assert (await flow.call("GET", f"/tasks/{rows['task_id']}", headers=headers))["id"] == rows["task_id"]
    await flow.call("GET", f"/tasks/{other['task_id']}", 404, headers=headers)
    await flow.call("POST", f"/tasks/{rows['task_id']}/cancel", 403, headers=headers, json={})
    # Of the tickets it sees its task's; a result it may submit for that one only.
    listed = await flow.call("GET", "/tickets", headers=headers)
    assert ([one["id"] for one in listed["tickets"]], listed["total"]) == ([rows["ticket_id"]], 1)
    assert (await flow.call("GET", "/tickets?status=done", headers=headers))["tickets"] == []
    assert (await flow.call("GET", "/tickets?offset=1", headers=headers))["tickets"] == []
    for status, ticket in ((200, rows["ticket_id"]), (404, other["ticket_id"])):
        await flow.call("GET", f"/tickets/{ticket}", status, headers=headers)
        await flow.call("GET", f"/tickets/{ticket}/context", status, headers=headers)
        await flow.call("GET", f"/workflows/{ticket}/results", status, headers=headers)
        body = {"workflow_id": ticket, "markdown_file_path": "result.md"}
        await flow.call("POST", "/submit_result", status, headers=headers, json=body)


async def test_who_may_end_no_task_cannot_clean_up(flow: Any) -> None:
    path = "/tasks/cleanup-timed-out"
    await flow.call("POST", path, 403, headers=await flow.headers_of("viewer"))
    assert (await flow.call("POST", path))["cleaned_count"] == 0
