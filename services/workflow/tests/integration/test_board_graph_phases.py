"""Board, graph, phases and results through the HTTP edge, with their errors."""

from __future__ import annotations

import asyncio
from typing import Any

from omoios.workflow.events.v1 import events_pb2 as own


async def ticket_of(flow: Any, project: Any, title: str = "One", **fields: Any) -> Any:
    body = {"title": title, "project_id": project["id"], "phase_id": "PHASE_BACKLOG"} | fields
    return await flow.call("POST", "/tickets", json=body)


async def test_the_board_counts_moves_and_holds_its_limits(flow: Any) -> None:
    project = await flow.project()
    tickets = [await ticket_of(flow, project, f"T{n}") for n in range(7)]
    view = await flow.call("GET", f"/board/view?project_id={project['id']}")
    assert [one["id"] for one in view["columns"]] == [
        "backlog", "analyzing", "building", "testing", "deploying", "done", "blocked",
    ]  # fmt: skip
    assert view["columns"][0]["current_count"] == 7
    assert [one["title"] for one in view["columns"][0]["tickets"]] == [f"T{n}" for n in range(6, -1, -1)]

    async def move(ticket: Any, column: str, status: int = 200, **fields: Any) -> Any:
        body = {"ticket_id": ticket["id"], "target_column_id": column} | fields
        return await flow.call("POST", "/board/move", status, json=body)

    moved = await move(tickets[0], "analyzing")
    assert moved == {
        "ticket_id": tickets[0]["id"], "new_phase": "PHASE_REQUIREMENTS", "new_column": "analyzing", "status": "moved",
    }  # fmt: skip
    event = own.TicketTransitioned.FromString((await flow.events("workflow.ticket.transitioned.v1"))[0]["payload"])
    assert (event.from_column, event.to_column, event.to_status) == ("backlog", "analyzing", "analyzing")
    assert event.title == tickets[0]["title"]
    answers = await asyncio.gather(
        *(
            flow.http.post(
                "/api/v1/board/move",
                json={"ticket_id": ticket["id"], "target_column_id": "analyzing"},
                headers=flow.headers,
            )
            for ticket in tickets[1:]
        )
    )
    assert sorted(one.status_code for one in answers) == [200] * 4 + [400] * 2, "five fit, whoever comes first"
    left = next(ticket for ticket, one in zip(tickets[1:], answers, strict=True) if one.status_code == 400)
    assert (await move(left, "analyzing", 400))["code"] == "workflow.wip_limit_reached"
    await move(left, "analyzing", force=True)
    assert (await move(left, "nowhere", 400))["code"] == "workflow.column_not_found"
    assert (await move(left, "done", 400))["code"] == "workflow.transition_refused"
    violations = await flow.call("GET", f"/board/wip-violations?project_id={project['id']}")
    assert [(one["column_id"], one["excess"]) for one in violations] == [("analyzing", 1)]
    assert await flow.job("fold-ticket-counts")() > 0
    stats = {one["column_id"]: one for one in await flow.call("GET", "/board/stats")}
    assert (stats["analyzing"]["ticket_count"], stats["analyzing"]["utilization"]) == (6, 1.2)
    assert stats["analyzing"]["wip_exceeded"]
    counted = await flow.sql("SELECT phase_id, count(*) AS n FROM tickets GROUP BY phase_id")
    project_stats = await flow.call("GET", f"/projects/{project['id']}/stats")
    assert project_stats["tickets_by_phase"] == {row["phase_id"]: row["n"] for row in counted}
    assert project_stats["total_tickets"] == 7
    assert "requirements_document" in (await move(tickets[0], "building", 400))["detail"]
    await move(tickets[0], "building", force=True)
    stays = await flow.call("POST", f"/board/auto-transition/{left['id']}")
    assert (stays["transitioned"], stays["reason"]) == (False, "the column has no following one")
    gated = await flow.call("POST", f"/board/auto-transition/{tickets[0]['id']}")
    assert (gated["transitioned"], "test_coverage" in gated["reason"]) == (False, True)
    blocked = await move(tickets[0], "blocked")
    assert blocked["new_phase"] == "PHASE_BLOCKED"
    back = await flow.call("POST", f"/tickets/{tickets[0]['id']}/unblock")
    assert (back["phase_id"], back["is_blocked"]) == ("PHASE_IMPLEMENTATION", False)
    column = await flow.call("GET", "/board/column/PHASE_DESIGN")
    assert (column["id"], column["phase_mappings"]) == ("analyzing", ["PHASE_REQUIREMENTS", "PHASE_DESIGN"])


async def test_many_tickets_at_once(flow: Any) -> None:
    project = await flow.project()
    made = await asyncio.gather(*(ticket_of(flow, project, f"Together {n}") for n in range(32)))
    assert len({one["id"] for one in made}) == 32
    assert (await flow.call("GET", f"/tickets?project_id={project['id']}"))["total"] == 32


async def test_graphs(flow: Any) -> None:
    project = await flow.project()
    spec = await flow.spec(project["id"])
    ids = {one["local_id"]: one["task_id"] for one in spec["tasks"]}
    graph = await flow.call("GET", f"/graph/dependency-graph/project/{project['id']}")
    meta = graph["metadata"]
    assert (meta["total_tasks"], meta["critical_path_length"], meta["total_nodes"]) == (3, 2, 6)
    assert meta["critical_path"][-1] == ids["C"]
    kinds = sorted(one["type"] for one in graph["edges"])
    assert kinds == ["depends_on"] * 2 + ["ticket_contains"] * 3
    assert {(one["source"], one["target"]) for one in graph["edges"] if one["type"] == "depends_on"} == {
        (ids["A"], ids["C"]), (ids["B"], ids["C"]),
    }  # fmt: skip
    node = next(one for one in graph["nodes"] if one["id"] == ids["C"])
    assert (node["is_blocked"], node["blocks_count"], node["label"]) == (True, 0, "Check it all")
    blocking = await flow.call("GET", f"/graph/dependency-graph/task/{ids['C']}/blocking")
    assert ({one["id"] for one in blocking["blocking_tasks"]}, blocking["all_dependencies_complete"]) == (
        {ids["A"], ids["B"]}, False,
    )  # fmt: skip
    blocked = await flow.call("GET", f"/graph/dependency-graph/task/{ids['A']}/blocked")
    assert (blocked["blocked_count"], blocked["blocked_tasks"][0]["id"]) == (1, ids["C"])
    ticket = node["ticket_id"]
    small = await flow.call("GET", f"/graph/dependency-graph/ticket/{ticket}")
    assert (small["metadata"]["total_tasks"], small["metadata"]["critical_path"]) == (1, [])


async def test_phases_and_gates(flow: Any) -> None:
    registry = await flow.call("GET", "/configs")
    assert [one["sequence_order"] for one in registry] == [0, 1, 2, 3, 4, 5, 6, 99]
    assert registry[3]["allowed_transitions"] == ["PHASE_TESTING", "PHASE_DONE", "PHASE_BLOCKED"]
    project = await flow.project()
    ticket = await ticket_of(flow, project, phase_id="PHASE_TESTING")
    path = f"/tickets/{ticket['id']}"
    status = await flow.call("GET", f"{path}/gate-status")
    assert (status["validation_status"], status["missing_artifacts"]) == ("blocked", ["test_results", "test_evidence"])
    refused = await flow.call("POST", f"{path}/phase-transition", 400, json={"to_phase": "PHASE_DONE"})
    assert "artifact 'test_results' is missing" in refused["detail"]["blocking_reasons"]
    for kind, content in (("test_results", {"all_passed": False}), ("test_evidence", {})):
        body = {"phase_id": "PHASE_TESTING", "artifact_type": kind, "artifact_content": content}
        await flow.call("POST", f"{path}/artifacts", json=body)
    body = {"phase_id": "PHASE_TESTING", "artifact_type": "test_results", "artifact_content": {"all_passed": True}}
    await flow.call("POST", f"{path}/artifacts", json=body)
    await flow.sql("UPDATE tasks SET status = 'completed'")
    validated = await flow.call("POST", f"{path}/validate-gate")
    assert validated == {"gate_status": "passed", "requirements_met": True, "blocking_reasons": []}
    assert (await flow.call("GET", f"{path}/can-transition/PHASE_DONE"))["can_transition"]
    assert not (await flow.call("GET", f"{path}/can-transition/PHASE_BACKLOG"))["can_transition"]
    advanced = await flow.call("POST", f"{path}/check-advance")
    assert (advanced["advanced"], advanced["to_phase"], advanced["to_status"]) == (
        True, "PHASE_DEPLOYMENT", "building-done",
    )  # fmt: skip
    assert (await flow.call("POST", f"{path}/fast-track"))["success"] is False
    done = await flow.call("POST", f"{path}/complete")
    assert (done["to_phase"], done["to_status"]) == ("PHASE_DONE", "done")
    other = await ticket_of(flow, project, "Other")
    fast = await flow.call("POST", f"/tickets/{other['id']}/fast-track?reason=now")
    assert (fast["to_phase"], fast["tasks_spawned"], fast["reason"]) == ("PHASE_IMPLEMENTATION", 1, "now")
    again = await flow.call("POST", f"/tickets/{other['id']}/spawn-phase-tasks")
    assert (again["tasks_spawned"], again["error"]) == (0, "PHASE_IMPLEMENTATION has work already")
    unknown = {"to_phase": "PHASE_NONE", "force": True}
    await flow.call("POST", f"/tickets/{other['id']}/phase-transition", 404, json=unknown)


async def test_results(flow: Any) -> None:
    project = await flow.project()
    ticket = await ticket_of(flow, project, workflow_mode="quick")
    (task,) = await flow.claim()
    token = flow.signing.sandbox(flow.organization, task.sandbox_id, task_id=task.task_id, agent_id="agent-1")
    sandbox = {"Authorization": f"Bearer {token}"}
    report = {
        "task_id": task.task_id, "markdown_file_path": "out/report.md", "markdown_content": "# Done",
        "result_type": "fix", "summary": "fixed",
    }  # fmt: skip
    kept = await flow.call("POST", "/report_results", json=report, headers=sandbox)
    assert (kept["agent_id"], kept["verification_status"]) == ("agent-1", "unverified")
    for wrong in ({"markdown_file_path": "../etc/x.md"}, {"markdown_file_path": "x.txt"}, {"result_type": "poem"}):
        await flow.call("POST", "/report_results", 422, json=report | wrong, headers=sandbox)
    stranger = {"Authorization": f"Bearer {flow.signing.agent(flow.organization, 'agent-2')}"}
    refused = await flow.call("POST", "/report_results", 400, json=report, headers=stranger)
    assert refused["code"] == "workflow.not_the_tasks_agent"
    assert [one["result_id"] for one in await flow.call("GET", f"/tasks/{task.task_id}/results")] == [kept["result_id"]]
    submitted = await flow.call(
        "POST",
        "/submit_result",
        json={"workflow_id": ticket["id"], "markdown_file_path": "all.md", "evidence": ["log"]},
    )
    decision = {"result_id": submitted["result_id"], "validation_passed": True, "feedback": "good"}
    decided = await flow.call("POST", "/submit_result_validation", json=decision)
    assert (decided["validation_status"], decided["action_taken"]) == ("validated", "workflow_terminated")
    assert (await flow.call("GET", f"/tasks/{task.task_id}"))["status"] == "cancelled"
    again = await flow.call("POST", "/submit_result_validation", 409, json=decision | {"validation_passed": False})
    assert again["code"] == "workflow.result_decided"
    unknown = await flow.call("POST", "/submit_result_validation", 404, json=decision | {"result_id": "none"})
    assert unknown["code"] == "workflow.result_not_found"
    listed = await flow.call("GET", f"/workflows/{ticket['id']}/results")
    assert [(one["status"], one["evidence"]) for one in listed] == [("validated", {"items": ["log"]})]
