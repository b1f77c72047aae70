"""Agents and sandboxes; what monitoring says of them; branches and commits."""

from __future__ import annotations

from typing import Any

from tests.e2e.access.rooms import Rooms, Rows, makes, new_agent, new_sandbox
from tests.e2e.world import eventually, git


@makes("agent_id", "agent_token")
def agent(rooms: Rooms) -> Rows:
    """An idle agent."""
    agent_id, token = new_agent(rooms)
    return {"agent_id": agent_id, "agent_token": token}


@makes(
    "sandbox_id",
    "sandbox_token",
    "sandbox_task_id",
    "sandbox_ticket_id",
    "sandbox_agent_id",
    "sandbox_agent_token",
    fleeting=True,
)
def sandbox(rooms: Rooms) -> Rows:
    """A sandbox at work."""
    return new_sandbox(rooms)


@makes("alert_id")
def alert(rooms: Rooms) -> Rows:
    """An alert about a critical ticket that is blocked."""
    made = rooms.ticket(rooms.cast.tenant.project_id, priority="CRITICAL")
    rooms.owner.ok("POST", f"/tickets/{made}/block?blocker_type=dependency")

    def found() -> Any:
        alerts = rooms.owner.get("/alerts")
        listed = alerts if isinstance(alerts, list) else alerts["alerts"]
        return [one for one in listed if made in str(one)]

    return {"alert_id": eventually(found, "the alert about the blocked ticket")[0]["id"]}


@makes("anomaly_id")
def anomaly(rooms: Rooms) -> Rows:
    """An anomaly about an agent that fell silent; it takes the half minute that an idle agent may be silent."""

    def found() -> Any:
        anomalies = rooms.owner.get("/monitor/anomalies")
        return anomalies if isinstance(anomalies, list) else anomalies["anomalies"]

    return {"anomaly_id": eventually(found, "the anomaly about a silent agent", 120)[0]["anomaly_id"]}


@makes("branch_ticket_id", "branch_name")
def branch_ticket(rooms: Rooms) -> Rows:
    """A ticket with a branch."""
    made = rooms.ticket(rooms.cast.tenant.project_id)
    started = rooms.owner.post("/branch-workflow/start", {"ticket_id": made, "ticket_title": "A branch"})
    assert started["success"], started
    return {"branch_ticket_id": made, "branch_name": started["branch_name"]}


@makes("pushable_branch")
def pushable_branch(rooms: Rooms) -> Rows:
    """A branch of ours that can be pushed to the project's repository."""
    made = branch_ticket(rooms)["branch_ticket_id"]
    merged = rooms.owner.post("/branch-workflow/merge", {"ticket_id": made})
    assert merged["success"], merged
    return {"pushable_branch": merged["target_branch"]}


@makes("commit_sha", "commit_ticket_id", fleeting=True)
def commit(rooms: Rooms) -> Rows:
    """A commit that is linked to the ticket of a sandbox."""
    made = new_sandbox(rooms)
    sha = head(rooms)["head_sha"]
    answer = rooms.owner.call(
        "POST",
        f"/commits/ticket/{made['sandbox_ticket_id']}/link",
        {"commit_sha": sha, "agent_id": made["sandbox_agent_id"]},
    )
    # Linked already is as good: a ticket may get a second sandbox.
    assert answer.is_success or answer.status_code == 409, answer.text
    return {"commit_sha": sha, "commit_ticket_id": made["sandbox_ticket_id"], **made}


@makes("head_sha")
def head(rooms: Rooms) -> Rows:
    """The newest commit of the tenant's repository."""
    return {"head_sha": git(rooms.cast.tenant.repository, "rev-parse", "HEAD").strip()}
