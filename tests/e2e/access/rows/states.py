"""Work, agents and branches in states that refuse what is asked of them: ended, archived, full."""

from __future__ import annotations

import secrets
from typing import Any

from tests.e2e.access.rooms import NUMBERS, Rooms, Rows, makes, new_agent, new_sandbox
from tests.e2e.access.rows import agents, workflow
from tests.e2e.access.rows.identity_states import multiply
from tests.e2e.world import eventually, git

# What agents lets wait, less the one that is sent through the API.
MESSAGES = 99


def project(rooms: Rooms, **fields: Any) -> dict[str, Any]:
    """A new project without a repository, unless one is given."""
    body = {"organization_id": rooms.cast.tenant.organization_id, "name": f"State {secrets.token_hex(4)}"}
    return dict(rooms.owner.post("/projects", body | fields))


def planned(rooms: Rooms, project_id: str) -> dict[str, Any]:
    """A spec with a plan of two tasks."""
    body = {"project_id": project_id, "engine": "plan", "plan": workflow.PLAN.format(number=next(NUMBERS))}
    return dict(rooms.owner.post("/specs", body))


@makes("archived_project_id", "taken_name")
def archived_project(rooms: Rooms) -> Rows:
    """A project that is archived, and the name of one that is not."""
    made = project(rooms)["id"]
    rooms.owner.ok("DELETE", f"/projects/{made}")
    return {"archived_project_id": made, "taken_name": project(rooms)["name"]}


@makes("bare_spec_id", "empty_spec_id")
def bare_spec(rooms: Rooms) -> Rows:
    """A spec with everything but tasks, approved; and one with nothing."""
    body = {"project_id": rooms.cast.tenant.project_id, "title": "Bare"}
    made = rooms.owner.post("/specs", body)["id"]
    rooms.owner.post(f"/specs/{made}/requirements", {"title": "R", "condition": "it is asked", "action": "answer"})
    rooms.owner.post(f"/specs/{made}/approve-requirements")
    rooms.owner.ok("PUT", f"/specs/{made}/design", {"architecture": "one file"})
    rooms.owner.post(f"/specs/{made}/approve-design")
    return {"bare_spec_id": made, "empty_spec_id": rooms.owner.post("/specs", body)["id"]}


@makes("archived_spec_id")
def archived_spec(rooms: Rooms) -> Rows:
    """A spec that was archived with a task that no task of the queue was made of."""
    made = planned(rooms, rooms.cast.tenant.project_id)["id"]
    rooms.owner.post(f"/specs/{made}/tasks", {"title": "Loose"})
    rooms.owner.ok("DELETE", f"/specs/{made}")
    return {"archived_spec_id": made}


@makes("unmirrored_spec_id")
def unmirrored_spec(rooms: Rooms) -> Rows:
    """A spec of a project whose repository cannot be had, with a task that no task of the queue was made of."""
    made = project(rooms, repository_url="/nowhere/at/all")["id"]
    eventually(
        lambda: rooms.owner.get(f"/projects/{made}")["repository_state"] == "failed", "the repository is refused"
    )
    found = planned(rooms, made)["id"]
    rooms.owner.post(f"/specs/{found}/tasks", {"title": "Loose"})
    return {"unmirrored_spec_id": found}


@makes("gated_spec_id")
def gated_spec(rooms: Rooms) -> Rows:
    """A spec of a project that wants approvals, without one."""
    gates = {"spec_driven_options": {"require_approval_gates": True}}
    return {"gated_spec_id": planned(rooms, project(rooms, settings=gates)["id"])["id"]}


@makes("idle_spec_id", "idle_spec_task_id")
def idle_spec(rooms: Rooms) -> Rows:
    """A spec that was never executed, and its last task."""
    made = planned(rooms, rooms.cast.tenant.project_id)
    return {"idle_spec_id": made["id"], "idle_spec_task_id": made["tasks"][-1]["id"]}


@makes("stopped_spec_id", "stopped_task_id")
def stopped_spec(rooms: Rooms) -> Rows:
    """A spec whose execution was cancelled, and the first task of that execution."""
    made = planned(rooms, rooms.cast.tenant.project_id)
    rooms.owner.post(f"/specs/{made['id']}/execute")
    rooms.owner.post(f"/specs/{made['id']}/cancel", {"reason": "enough"})
    return {"stopped_spec_id": made["id"], "stopped_task_id": made["tasks"][0]["task_id"]}


@makes("unpaid_spec_id", "unpaid_token")
def unpaid_spec(rooms: Rooms) -> Rows:
    """A spec of an organization whose account is suspended, and its owner's token."""
    found = rooms.of(("hoarder_token", "hoarder_org_id"), fresh=False)
    headers = {"Authorization": f"Bearer {found['hoarder_token']}"}

    def made(path: str, body: Any) -> str:
        answer = rooms.cast.world.http.post(f"/api/v1{path}", json=body, headers=headers)
        assert answer.is_success, answer.text
        return str(answer.json()["id"])

    project_id = made("/projects", {"organization_id": found["hoarder_org_id"], "name": f"Unpaid {next(NUMBERS)}"})
    plan = workflow.PLAN.format(number=next(NUMBERS))
    spec_id = made("/specs", {"project_id": project_id, "engine": "plan", "plan": plan})
    eventually(
        lambda: rooms.cast.databases.rows(
            "billing",
            "UPDATE billing_accounts SET status = 'suspended' WHERE organization_id = $1 RETURNING 1",
            found["hoarder_org_id"],
        ),
        "billing knows the organization",
    )
    return {"unpaid_spec_id": spec_id, "unpaid_token": found["hoarder_token"]}


@makes("idle_ticket_id")
def idle_ticket(rooms: Rooms) -> Rows:
    """An approved ticket in the backlog."""
    return {"idle_ticket_id": rooms.ticket(rooms.cast.tenant.project_id)}


@makes("crowded_ticket_id")
def crowded_ticket(rooms: Rooms) -> Rows:
    """A ticket in the backlog of a project whose next column is full."""
    made = project(rooms)["id"]
    column = next(one for one in rooms.owner.get("/board/view", project_id=made)["columns"] if one["id"] == "analyzing")
    for _ in range(column["wip_limit"]):
        moved = {"ticket_id": rooms.ticket(made), "target_column_id": "analyzing"}
        rooms.owner.post("/board/move", moved)
    return {"crowded_ticket_id": rooms.ticket(made)}


@makes("decided_result_id")
def decided_result(rooms: Rooms) -> Rows:
    """A result that did not pass."""
    made = workflow.result(rooms)["result_id"]
    verdict = {"result_id": made, "validation_passed": False, "feedback": "not yet"}
    rooms.owner.post("/submit_result_validation", verdict)
    return {"decided_result_id": made}


@makes("first_task_id", "later_task_id", "ended_task_id")
def ordered_tasks(rooms: Rooms) -> Rows:
    """A task that waits for another, and one that waited for it when it failed."""
    first, later, ended = (rooms.task_of(rooms.ticket(rooms.cast.tenant.project_id)) for _ in range(3))
    for task in (later, ended):
        rooms.owner.post(f"/tasks/{task}/dependencies", {"depends_on": [first]})
    rooms.owner.post(f"/tasks/{ended}/fail", {"reason": "broken"})
    return {"first_task_id": first, "later_task_id": later, "ended_task_id": ended}


# agents


@makes("terminated_agent_id")
def terminated_agent(rooms: Rooms) -> Rows:
    """An agent that is out of service for good."""
    made, _ = new_agent(rooms)
    rooms.owner.ok("PATCH", f"/agents/{made}", {"status": "idle"})
    rooms.owner.ok("PATCH", f"/agents/{made}", {"status": "terminated"})
    return {"terminated_agent_id": made}


def _as_agent(rooms: Rooms, made: Rows, action: str, body: Any) -> None:
    """What the worker of a sandbox says."""
    answer = rooms.cast.world.http.post(
        f"/api/v1/sandboxes/{made['sandbox_id']}/{action}",
        json=body,
        headers={"Authorization": f"Bearer {made['sandbox_agent_token']}"},
    )
    assert answer.is_success, answer.text


def _named(state: str, made: Rows) -> Rows:
    return {
        f"{state}_sandbox_id": made["sandbox_id"],
        f"{state}_task_id": made["sandbox_task_id"],
        f"{state}_agent_token": made["sandbox_agent_token"],
    }


@makes("cancelled_sandbox_id", "cancelled_task_id", "cancelled_agent_token")
def cancelled_sandbox(rooms: Rooms) -> Rows:
    """A sandbox that ended because its task was cancelled."""
    made = new_sandbox(rooms)
    rooms.owner.post(f"/tasks/{made['sandbox_task_id']}/cancel", {"reason": "enough"})

    def over() -> bool:
        found = rooms.owner.call("POST", f"/sandboxes/{made['sandbox_id']}/messages", {"content": "still there?"})
        return found.status_code == 409

    eventually(over, "the sandbox of the cancelled task ends")
    return _named("cancelled", made)


@makes("released_sandbox_id", "released_task_id", "released_agent_token")
def released_sandbox(rooms: Rooms) -> Rows:
    """A sandbox whose task was given back, so that another attempt may have it."""
    made = new_sandbox(rooms)
    _as_agent(rooms, made, "release", {"reason": "going away"})
    return _named("released", made)


@makes("completed_sandbox_id", "completed_task_id", "completed_agent_token")
def completed_sandbox(rooms: Rooms) -> Rows:
    """A sandbox whose task was completed."""
    made = new_sandbox(rooms)
    _as_agent(rooms, made, "task-complete", {"task_id": made["sandbox_task_id"]})
    return _named("completed", made)


@makes("deaf_sandbox_id", "deaf_task_id", "deaf_agent_token", "other_attempt_token")
def deaf_sandbox(rooms: Rooms) -> Rows:
    """A sandbox at work that reads no message, and a token of another attempt at its task."""
    made = new_sandbox(rooms)
    # Nobody beats for it while the others are called.
    rooms.cast.databases.rows(
        "workflow",
        "UPDATE tasks SET lease_expires_at = clock_timestamp() + interval '1 hour' WHERE id = $1",
        made["sandbox_task_id"],
    )
    message = rooms.owner.post(f"/sandboxes/{made['sandbox_id']}/messages", {"content": "hello"})["message_id"]
    multiply(rooms, "agents", "sandbox_messages", message, MESSAGES)
    other_attempt = rooms.cast.keys.token(
        "sandbox",
        made["sandbox_id"],
        org=rooms.cast.tenant.organization_id,
        project=rooms.workshop(),
        agent=made["sandbox_agent_id"],
        task=made["sandbox_task_id"],
        sandbox=made["sandbox_id"],
        attempt=99,
    )
    return _named("deaf", made) | {"other_attempt_token": other_attempt}


# monitoring, vcs


@makes("resolved_alert_id")
def resolved_alert(rooms: Rooms) -> Rows:
    """An alert that is over."""
    made = agents.alert(rooms)["alert_id"]
    rooms.owner.post(f"/alerts/{made}/resolve", {"resolved_by": "me"})
    return {"resolved_alert_id": made}


@makes("linked_ticket_id")
def linked_ticket(rooms: Rooms) -> Rows:
    """A ticket that has the newest commit already."""
    made = rooms.ticket(rooms.cast.tenant.project_id)
    body = {"commit_sha": agents.head(rooms)["head_sha"], "agent_id": "agent-1"}
    rooms.owner.post(f"/commits/ticket/{made}/link", body)
    return {"linked_ticket_id": made}


@makes("diverged_branch")
def diverged_branch(rooms: Rooms) -> Rows:
    """A branch of ours that somebody wrote differently in the project's own repository."""
    # One of its own: others push `omoios/main`.
    body = {"ticket_id": agents.branch_ticket(rooms)["branch_ticket_id"], "target_branch": "omoios/diverged"}
    merged = rooms.owner.post("/branch-workflow/merge", body)
    assert merged["success"], merged
    name = merged["target_branch"]
    repository = rooms.cast.tenant.repository
    tree = git(repository, "rev-parse", "HEAD^{tree}").strip()
    other = git(repository, "commit-tree", tree, "-m", "Somebody's own").strip()
    git(repository, "update-ref", f"refs/heads/{name}", other)
    return {"diverged_branch": name}
