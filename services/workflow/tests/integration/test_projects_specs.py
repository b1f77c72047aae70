"""Projects and specs through the HTTP edge, with their errors."""

from __future__ import annotations

import asyncio
from typing import Any

from omoios.vcs.events.v1 import events_pb2 as vcs_events
from omoios.workflow.events.v1 import events_pb2 as own
from servicekit.errors import AppError, Kind, invalid
from servicekit.ids import new_id

CHOICE = """# Choice
## Tasks
### A: First
- Command: `true`
### B: Second
- Command: `true`
### C: After both
- Depends: A, B
- Command: `true`
### D: On its own
- Command: `true`
"""


async def ticket_of(flow: Any, project: Any, title: str = "One", **fields: Any) -> Any:
    body = {"title": title, "project_id": project["id"], "phase_id": "PHASE_BACKLOG"} | fields
    return await flow.call("POST", "/tickets", json=body)


async def test_projects(flow: Any, assert_problem: Any) -> None:
    first = await flow.project(name="Same", description="d", settings={"max_concurrent_tasks": 9})
    body = {"organization_id": flow.organization, "name": "Same"}
    taken = await flow.http.post("/api/v1/projects", json=body, headers=flow.headers)
    assert_problem(taken, 409, "workflow.project_name_taken")
    foreign = await flow.http.post(
        "/api/v1/projects", json={"organization_id": new_id(), "name": "x"}, headers=flow.headers
    )
    assert_problem(foreign, 404, "workflow.organization_not_found")
    empty_owner = await flow.project(github_owner="")
    assert empty_owner["github_owner"] is None
    for wrong in ({"name": ""}, {"settings": {"max_concurrent_tasks": 0}}, {"default_phase_id": "PHASE_NONE"}):
        await flow.call("POST", "/projects", 422, json=body | {"name": "new"} | wrong)
    changed = await flow.call("PATCH", f"/projects/{first['id']}", json={"status": "paused", "name": None})
    assert (changed["status"], changed["name"], changed["version"]) == ("paused", "Same", 2)
    await flow.call("PATCH", f"/projects/{first['id']}", 422, json={"status": "gone"})
    await flow.call("PATCH", f"/projects/{empty_owner['id']}", 409, json={"name": "Same"})
    updates = await flow.events("workflow.project.updated.v1")
    assert own.ProjectUpdated.FromString(updates[0]["payload"]).changes_json == '{"status":"paused"}'
    for _ in range(2):
        answer = await flow.call("DELETE", f"/projects/{first['id']}")
        assert answer["success"]
    assert len(await flow.events("workflow.project.archived.v1")) == 1
    listed = await flow.call("GET", "/projects?status=archived")
    assert (listed["total"], [one["id"] for one in listed["projects"]]) == (1, [first["id"]])
    assert (await flow.call("GET", "/projects?limit=1&offset=1"))["total"] == 2
    await flow.call("GET", "/projects?limit=1001", 422)
    refused = await flow.call("POST", "/specs", 409, json={"project_id": first["id"], "title": "t"})
    assert refused["code"] == "workflow.project_archived"


async def test_the_same_idempotency_key_makes_one_project(flow: Any) -> None:
    body = {"organization_id": flow.organization, "name": "Once"}
    headers = flow.headers | {"Idempotency-Key": "key-1"}
    answers = [await flow.http.post("/api/v1/projects", json=body, headers=headers) for _ in range(2)]
    assert [one.status_code for one in answers] == [200, 200]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert answers[1].headers["idempotent-replayed"] == "true"
    assert (await flow.call("GET", "/projects"))["total"] == 1


async def test_a_repository_is_bound_in_the_end(flow: Any) -> None:
    flow.vcs.refuse = AppError("vcs.busy", "vcs is not there.", Kind.UNAVAILABLE)
    project = await flow.project(repository_url="https://example.test/a.git")
    await flow.job("bind-repositories")()
    waiting = await flow.call("GET", f"/projects/{project['id']}")
    assert (waiting["repository_state"], waiting["repository_error"]) == ("binding", "vcs is not there.")
    ticket = await ticket_of(flow, project, workflow_mode="quick")
    (task,) = await flow.call("GET", f"/tasks?ticket_id={ticket['id']}")
    reasons = (await flow.call("GET", f"/tasks/{task['id']}/readiness"))["reasons"]
    assert [one["code"] for one in reasons] == ["repository_not_ready"]
    assert await flow.claim() == []
    flow.vcs.refuse = None
    await flow.sql("UPDATE projects SET bind_after = clock_timestamp()")
    await flow.job("bind-repositories")()
    assert (await flow.call("GET", f"/projects/{project['id']}"))["repository_state"] == "mirroring"
    await flow.deliver(vcs_events.RepositoryReady(project_id=project["id"], default_branch="trunk"), times=2)
    # A failure that was told late does not take a repository away that is in use.
    await flow.deliver(vcs_events.RepositoryFailed(project_id=project["id"], error="late"))
    ready = await flow.call("GET", f"/projects/{project['id']}")
    assert (ready["repository_state"], ready["default_branch"]) == ("ready", "trunk")
    assert [one.task_id for one in await flow.claim()] == [task["id"]]

    flow.vcs.refuse = invalid("repository_url", "this path is not allowed", "/etc")
    other = await flow.project(repository_url="/etc")
    await flow.job("bind-repositories")()
    failed = await flow.call("GET", f"/projects/{other['id']}")
    assert failed["repository_state"] == "failed"
    assert failed["repository_error"] == "repository_url: this path is not allowed"
    spec = await flow.spec(other["id"])
    refused = await flow.call("POST", f"/specs/{spec['id']}/execute", 409)
    assert refused["code"] == "workflow.repository_not_ready"


async def test_an_execution_that_billing_refuses_begins_nothing(flow: Any, assert_problem: Any) -> None:
    project = await flow.project()
    spec = await flow.spec(project["id"])
    flow.billing.refuse = AppError("billing.limit_reached", "No execution is left.", Kind.PAYMENT_REQUIRED)
    refused = await flow.http.post(f"/api/v1/specs/{spec['id']}/execute", headers=flow.headers)
    assert_problem(refused, 402, "billing.limit_reached")
    assert await flow.claim() == []
    assert await flow.events("workflow.execution.started.v1") == []
    flow.billing.refuse = None

    async def execute() -> Any:
        # Who waits for the others' locks for too long is told to come again.
        while (answer := await flow.http.post(f"/api/v1/specs/{spec['id']}/execute", headers=flow.headers)).is_error:
            assert_problem(answer, 503, "database.unavailable")
            await asyncio.sleep(0.1)
        return answer.json()

    answers = await asyncio.gather(*(execute() for _ in range(5)))
    assert sorted(one["status"] for one in answers) == ["already_running"] * 4 + ["started"]
    assert len({one["execution_id"] for one in answers}) == 1
    assert len(await flow.events("workflow.execution.started.v1")) == 1


async def test_a_bad_plan_names_its_lines(flow: Any) -> None:
    project = await flow.project()
    body = {"project_id": project["id"], "plan": "# T\n## Tasks\n### A: a\n- Depends: B\n"}
    refused = await flow.call("POST", "/specs", 422, json=body)
    assert [one["ctx"]["line"] for one in refused["detail"]] == [3, 4]
    assert refused["detail"][0]["loc"] == ["body", "plan"]
    await flow.call("POST", "/specs", 422, json={"project_id": project["id"], "title": "t", "engine": "plan"})
    await flow.call("POST", "/specs", 422, json={"project_id": project["id"], "title": "t", "engine": "magic"})
    await flow.call("POST", "/specs", 422, json={"project_id": project["id"]})
    assert (await flow.call("GET", f"/specs/project/{project['id']}"))["total"] == 0


async def test_specs_and_their_parts(flow: Any) -> None:
    project = await flow.project()
    spec = await flow.spec(project["id"], None, title="By hand")
    assert (spec["status"], spec["phase"], spec["tasks"]) == ("draft", "Requirements", [])
    path = f"/specs/{spec['id']}"
    too_early = await flow.call("POST", f"{path}/approve-design", 400)
    assert too_early["code"] == "workflow.requirements_not_approved"
    assert (await flow.call("POST", f"{path}/approve-requirements", 400))["code"] == "workflow.nothing_to_approve"
    body = {"title": "Greets", "condition": "asked", "action": "greet"}
    requirement = await flow.call("POST", f"{path}/requirements", json=body)
    await flow.call("PATCH", f"{path}/requirements/{requirement['id']}", json={"status": "done"})
    criterion = await flow.call("POST", f"{path}/requirements/{requirement['id']}/criteria", json={"text": "polite"})
    other = await flow.spec(project["id"], None, title="Other")
    crossed = f"/specs/{other['id']}/requirements/{requirement['id']}"
    assert (await flow.call("PATCH", crossed, 404, json={}))["code"] == "workflow.requirement_not_found"
    await flow.call(
        "PATCH", f"{path}/requirements/{requirement['id']}/criteria/{criterion['id']}", json={"completed": True}
    )
    nothing = f"{path}/requirements/{requirement['id']}/criteria/{requirement['id']}"
    assert (await flow.call("PATCH", nothing, 404, json={}))["code"] == "workflow.criterion_not_found"
    criteria = await flow.call("GET", f"{path}/criteria-status")
    assert (criteria["completion_percentage"], criteria["all_complete"]) == (100.0, True)
    design = await flow.call(
        "PUT",
        f"{path}/design",
        json={
            "architecture": {"layers": ["web", "data"]},
            "data_model": {},
            "api_spec": [{"method": "GET", "path": "/x"}],
        },
    )
    assert design["architecture"].startswith("```mermaid\nflowchart TB")
    assert (design["data_model"], design["api_spec"][0]["endpoint"]) == (None, "/x")
    await flow.call("POST", f"{path}/approve-requirements")
    await flow.call("POST", f"{path}/approve-design")
    task = await flow.call("POST", f"{path}/tasks", json={"title": "Do it", "priority": "HIGH"})
    assert (task["priority"], task["status"]) == ("high", "pending")
    await flow.call("PATCH", f"{path}/tasks/{task['id']}", json={"status": "in_progress"})
    await flow.call("PATCH", f"{path}/tasks/{task['id']}", 422, json={"status": "sleeping"})
    found = await flow.call("GET", path)
    assert (found["status"], found["phase"], found["tasks"][0]["status"]) == ("design", "Implementation", "in_progress")
    await flow.call("DELETE", f"{path}/tasks/{task['id']}")
    gone = await flow.call("DELETE", f"{path}/tasks/{task['id']}", 404)
    assert gone["code"] == "workflow.spec_task_not_found"
    await flow.call("DELETE", f"{path}/requirements/{requirement['id']}")
    await flow.call("PATCH", path, 422, json={"status": "completed"})
    await flow.call("PATCH", path, json={"title": "Renamed", "phase": "Testing"})
    versions = (await flow.call("GET", f"{path}/versions?limit=100"))["versions"]
    assert [one["version_number"] for one in versions] == list(range(len(versions), 0, -1))
    assert versions[0]["change_type"] == "phase_changed"
    assert {"requirements_approved", "design_approved", "created"} <= {one["change_type"] for one in versions}
    await flow.call("DELETE", path)
    assert (await flow.call("GET", f"/specs/project/{project['id']}"))["total"] == 1
    assert (await flow.call("GET", f"/specs/project/{project['id']}?include_archived=true"))["total"] == 2


async def test_archiving_a_spec_ends_its_work_and_hides_it(flow: Any) -> None:
    project = await flow.project()
    spec = await flow.spec(project["id"])
    await flow.call("POST", f"/specs/{spec['id']}/execute")
    await flow.claim(1)
    await flow.call("DELETE", f"/specs/{spec['id']}")
    assert await flow.claim() == []
    assert await flow.call("GET", "/tasks") == []
    assert (await flow.call("GET", "/tickets"))["total"] == 0
    view = await flow.call("GET", f"/board/view?project_id={project['id']}")
    assert sum(one["current_count"] for one in view["columns"]) == 0
    assert len(await flow.events("workflow.execution.finished.v1")) == 1
    again = await flow.call("POST", f"/specs/{spec['id']}/execute", 409)
    assert again["code"] == "workflow.spec_archived"


async def test_a_chosen_task_brings_what_it_waits_for_and_the_spec_goes_on_later(flow: Any) -> None:
    project = await flow.project()
    spec = await flow.spec(project["id"], CHOICE)
    path = f"/specs/{spec['id']}"
    tasks = {one["title"]: one for one in await flow.call("GET", f"{path}/tasks")}
    begun = await flow.call("POST", f"{path}/execute-tasks", json={"task_ids": [tasks["After both"]["id"]]})
    assert (begun["message"], begun["tasks_created"]) == ("Execution started with 3 task(s)", 1)
    first = await flow.claim(10)
    assert {one.title for one in first} == {"First", "Second"}
    why = await flow.call("GET", f"/tasks/{tasks['On its own']['task_id']}/readiness")
    assert [one["code"] for one in why["reasons"]] == ["spec_not_executing"]
    for claimed in first:
        await flow.complete(claimed)
    [last] = await flow.claim(10)
    await flow.complete(last)
    status = await flow.call("GET", f"{path}/execution-status")
    assert (status["execution_status"], status["is_complete"]) == ("completed", False)
    assert (await flow.call("GET", path))["phase"] == "Implementation"
    await flow.call("POST", f"{path}/execute")
    assert [one.title for one in await flow.claim(10)] == ["On its own"]


async def test_what_waits_for_something_lost_ends_its_execution_instead_of_waiting(flow: Any) -> None:
    """A task outside the spec was cancelled: the spec's task that depends on it says so, and so does the execution."""
    project = await flow.project()
    spec = await flow.spec(project["id"], "# Lost\n## Tasks\n### A: Waits\n- Command: `true`\n")
    ticket = await ticket_of(flow, project)
    body = {"ticket_id": ticket["id"], "title": "Outside", "description": "d", "task_type": "implement_feature"}
    outside = await flow.call("POST", "/tasks", 201, json=body)
    [inside] = await flow.call("GET", f"/specs/{spec['id']}/tasks")
    await flow.sql(
        "INSERT INTO task_dependencies (task_id, depends_on_id) VALUES ($1, $2)", inside["task_id"], outside["id"]
    )
    await flow.sql("UPDATE tasks SET unmet_dependencies = 1 WHERE id = $1", inside["task_id"])
    await flow.call("POST", f"/tasks/{outside['id']}/cancel")
    await flow.call("POST", f"/specs/{spec['id']}/execute")
    assert await flow.claim() == []
    status = await flow.call("GET", f"/specs/{spec['id']}/execution-status")
    assert status["execution_status"] == "failed"
    assert len(await flow.events("workflow.execution.finished.v1")) == 1


async def test_executing_twice_under_one_key_is_executing_once(flow: Any) -> None:
    project = await flow.project()
    for operation in ("execute", "execute-tasks"):
        spec = await flow.spec(project["id"])
        key = {"Idempotency-Key": f"{operation}-{spec['id']}"}
        first, again = [
            await flow.call("POST", f"/specs/{spec['id']}/{operation}", headers=flow.headers | key) for _ in range(2)
        ]
        assert first == again
    assert len(await flow.events("workflow.execution.started.v1")) == 2


async def test_a_spec_that_is_archived_while_billing_is_asked_is_not_executed(flow: Any) -> None:
    project = await flow.project()
    spec = await flow.spec(project["id"])

    async def archive() -> None:
        await flow.call("DELETE", f"/specs/{spec['id']}")

    flow.billing.meanwhile = archive
    refused = await flow.call("POST", f"/specs/{spec['id']}/execute", 409)
    assert refused["code"] == "workflow.spec_archived"
    assert await flow.claim(10) == []
    assert await flow.events("workflow.execution.started.v1") == []


async def test_chosen_tasks_of_a_spec_are_executed_and_no_others(flow: Any) -> None:
    project = await flow.project()
    spec = await flow.spec(project["id"])
    path = f"/specs/{spec['id']}"
    chosen = await flow.call("POST", f"{path}/tasks", json={"title": "By hand", "priority": "critical"})
    later = await flow.call("POST", f"{path}/tasks", json={"title": "Later", "phase": "Testing"})
    nothing = await flow.call("POST", f"{path}/execute-tasks", json={"task_ids": ["spec-task-unknown"]})
    assert (nothing["success"], nothing["tasks_created"], nothing["tasks_skipped"]) == (True, 0, 0)
    begun = await flow.call("POST", f"{path}/execute-tasks", json={"task_ids": [chosen["id"]]})
    assert (begun["success"], begun["tasks_created"], begun["tasks_skipped"]) == (True, 1, 0)
    assert [one.title for one in await flow.claim(10)] == ["By hand"]
    again = await flow.call("POST", f"{path}/execute-tasks", json={"task_ids": [chosen["id"]]})
    assert (again["tasks_created"], again["tasks_skipped"]) == (0, 1)
    held = await flow.call("DELETE", f"{path}/tasks/{chosen['id']}", 409)
    assert held["code"] == "workflow.spec_executing"
    extra = await flow.call("POST", f"{path}/tasks", json={"title": "While it runs", "priority": "critical"})
    joined = await flow.call("POST", f"{path}/execute-tasks", json={"task_ids": [extra["id"]]})
    assert (joined["message"], joined["tasks_created"]) == ("The spec is being executed", 1)
    [running] = await flow.claim(10)
    assert running.title == "While it runs"
    await flow.call("POST", f"{path}/pause")
    await flow.call("POST", f"{path}/tasks", json={"title": "During the pause"})
    rest = await flow.call("POST", f"{path}/execute-tasks")
    assert await flow.claim(10) == []
    await flow.complete(running)
    await flow.call("POST", f"{path}/resume")
    assert (rest["tasks_created"], rest["tasks_skipped"]) == (5, 2)
    tasks = {one["title"]: one for one in await flow.call("GET", f"{path}/tasks")}
    assert all(one["task_id"] for one in tasks.values())
    assert {one.title for one in await flow.claim(10)} == {
        *("Write the greeting", "Write the log", later["title"], "During the pause")
    }
    draft = await flow.spec(project["id"], None, title="Not approved")
    refused = await flow.call("POST", f"/specs/{draft['id']}/execute-tasks", 400)
    assert refused["code"] == "workflow.design_not_approved"
