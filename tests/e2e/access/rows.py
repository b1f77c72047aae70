"""Rows that the recipes name, each made through the public API by the owner of the first tenant.

A maker gives the rows of the names it is registered under; asked again it makes others.
"""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections.abc import Callable, Iterable
from email import message_from_bytes
from email.policy import default as default_policy
from typing import Any

from tests.e2e.access.callers import Cast
from tests.e2e.world import eventually, git

Rows = dict[str, str]
Maker = Callable[["Rooms"], Rows]
MAKERS: dict[str, Maker] = {}
FLEETING: set[Maker] = set()
"""Makers of rows that soon end by themselves, such as a sandbox whose lease runs out."""
BEAT_S = 2.0
INVITATION_TOKEN = re.compile(r"omi_[A-Za-z0-9_-]{43}")
_NUMBERS = itertools.count(1)

PLAN = """# Plan {number}

## Requirements

### REQ-1: Exists
WHEN it is asked for THE SYSTEM SHALL have a file.
- The file is there

## Design

One file.

## Tasks

### ONE: Write a file
- Requirements: REQ-1
- Command: `echo one > one.txt`

### TWO: Write another
- Depends: ONE
- Command: `echo two > two.txt`
"""


def makes(*names: str, fleeting: bool = False) -> Callable[[Maker], Maker]:
    """Registers a maker of these rows."""

    def register(maker: Maker) -> Maker:
        if fleeting:
            FLEETING.add(maker)
        MAKERS.update(dict.fromkeys(names, maker))
        return maker

    return register


class Rooms:
    """Makes rows; those that nobody changes are made once and shared."""

    def __init__(self, cast: Cast) -> None:
        self.cast = cast
        self.owner = cast.owner
        self.shared: Rows = {
            "organization_id": cast.tenant.organization_id,
            "org_id": cast.tenant.organization_id,
            "project_id": cast.tenant.project_id,
            "viewer_role_id": cast.roles["viewer"],
            "member_role_id": cast.roles["member"],
        }
        self._workshop: str | None = None
        self._beaten = 0.0

    def of(self, names: Iterable[str], *, fresh: bool) -> Rows:
        """The rows of these names: shared ones, or new ones where somebody is going to change them."""
        found = {name: self.shared[name] for name in names if name in self.shared and name not in MAKERS}
        makers = {MAKERS[name] for name in names if name not in found}
        for maker in sorted(makers, key=lambda one: one.__name__):
            if fresh or maker in FLEETING:
                found |= maker(self)
                continue
            known = [name for name, one in MAKERS.items() if one is maker]
            if not all(name in self.shared for name in known):
                self.shared |= maker(self)
            found |= {name: self.shared[name] for name in known}
        return found

    def keep(self, rows: Rows) -> None:
        """Let the sandbox among the rows beat, so that its lease lasts while everybody calls."""
        if "sandbox_token" in rows and time.monotonic() - self._beaten > BEAT_S:
            self._beaten = time.monotonic()
            self.cast.world.http.post(
                f"/api/v1/sandboxes/{rows['sandbox_id']}/heartbeat",
                json={},
                headers={"Authorization": f"Bearer {rows['sandbox_token']}"},
            )

    def workshop(self) -> str:
        """A project whose tasks are there to be claimed."""
        if self._workshop is None:
            body = {
                "organization_id": self.cast.tenant.organization_id,
                "name": f"Workshop {secrets.token_hex(3)}",
                "repository_url": str(self.cast.tenant.repository),
                "settings": {"max_concurrent_tasks": -1},
            }
            project = str(self.owner.post("/projects", body)["id"])
            self.owner.ok("PATCH", f"/projects/{project}", {"autonomous_execution_enabled": True})
            eventually(
                lambda: self.owner.get(f"/projects/{project}")["repository_state"] == "ready", "the workshop is ready"
            )
            self._workshop = project
        return self._workshop

    def ticket(self, project: str, **fields: Any) -> str:
        """A new ticket with its first task."""
        number = next(_NUMBERS)
        body = {"title": f"Ticket {number}", "description": f"Number {number}", "project_id": project}
        body |= {"phase_id": "PHASE_BACKLOG"} | fields
        return str(self.owner.post("/tickets", body)["id"])

    def task_of(self, ticket: str) -> str:
        """The first task of a ticket."""
        return str(self.owner.get("/tasks", ticket_id=ticket)[0]["id"])


def mailed(rooms: Rooms, address: str, wanted: re.Pattern[str]) -> str | None:
    """What a mail to this address holds; None while none has come."""
    for file in sorted(rooms.cast.world.client.state.mail.glob("*.eml"), reverse=True):
        message = message_from_bytes(file.read_bytes(), policy=default_policy)
        text = message.get_body(("plain",)) if message["X-Envelope-To"] == address else None
        found = wanted.search(text.get_content()) if text is not None else None
        if found:
            return found[0]
    return None


def new_agent(rooms: Rooms, organization: str | None = None) -> tuple[str, str]:
    """(id, token) of a new agent."""
    person = rooms.owner if organization is None else rooms.cast.other.owner
    body = {
        "agent_type": "worker",
        "capabilities": ["python"],
        "capacity": 10,
        "organization_id": organization or rooms.cast.tenant.organization_id,
    }
    made = person.post("/agents/register", body)
    return made["agent_id"], made["token"]


def new_sandbox(rooms: Rooms) -> Rows:
    """A sandbox with a task of its own, claimed by an agent of its own."""
    agent_id, token = new_agent(rooms)
    task = rooms.task_of(rooms.ticket(rooms.workshop()))
    answer = rooms.cast.world.http.post(
        f"/api/v1/agents/{agent_id}/claim",
        json={"max": 1, "project_ids": [rooms.workshop()], "wait_s": 10},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert answer.is_success, answer.text
    assert answer.json()["claims"], f"{answer.text}, because {rooms.owner.get(f'/tasks/{task}/readiness')}"
    claim = answer.json()["claims"][0]
    return {
        "sandbox_id": claim["sandbox"]["id"],
        "sandbox_token": claim["sandbox"]["token"],
        "sandbox_task_id": claim["task"]["id"],
        "sandbox_ticket_id": claim["task"]["ticket_id"],
        "sandbox_agent_id": agent_id,
        "sandbox_agent_token": token,
    }


def complete(rooms: Rooms) -> None:
    """The machines of the cast, which need rows of their own."""
    cast = rooms.cast
    cast.tokens["agent"] = new_agent(rooms)[1]
    cast.tokens["foreign_agent"] = new_agent(rooms, cast.other.organization_id)[1]
    # These sandboxes never ran, so that no lease of theirs can end; what they show is signed by identity's own key.
    for name, tenant in (("sandbox", cast.tenant), ("other_sandbox", cast.tenant), ("foreign_sandbox", cast.other)):
        sandbox_id = f"sandbox-{secrets.token_hex(8)}"
        cast.tokens[name] = cast.keys.token(
            "sandbox",
            sandbox_id,
            org=tenant.organization_id,
            project=tenant.project_id,
            agent=f"agent-{secrets.token_hex(8)}",
            task=rooms.of(["task_id"], fresh=True)["task_id"],
            sandbox=sandbox_id,
            attempt=1,
        )


# Organizations


@makes("spare_org_id")
def spare_organization(rooms: Rooms) -> Rows:
    """An organization that may be closed; the viewer is a member."""
    mark = secrets.token_hex(4)
    made = rooms.owner.post("/organizations", {"name": f"Spare {mark}", "slug": f"spare-{mark}"})["id"]
    viewer = {"user_id": rooms.cast.people["viewer"].user_id, "role_id": rooms.cast.roles["viewer"]}
    rooms.owner.post(f"/organizations/{made}/members", viewer)
    return {"spare_org_id": made}


@makes("new_user_id")
def new_user(rooms: Rooms) -> Rows:
    """A user who is a member of nothing."""
    return {"new_user_id": rooms.cast.world.register().user_id}


@makes("leaver_email", "leaver_token", "leaver_refresh_token")
def leaver(rooms: Rooms) -> Rows:
    """Somebody with a session that may end."""
    person = rooms.cast.world.register()
    return {
        "leaver_email": person.email,
        "leaver_token": person.token,
        "leaver_refresh_token": person.refresh_token,
    }


@makes("spare_member_id", "spare_member_org_id")
def spare_member(rooms: Rooms) -> Rows:
    """A member of an organization that may be given away."""
    organization = spare_organization(rooms)["spare_org_id"]
    body = {"user_id": rooms.cast.world.register().user_id, "role_id": rooms.cast.roles["member"]}
    made = rooms.owner.post(f"/organizations/{organization}/members", body)
    return {"spare_member_org_id": organization, "spare_member_id": made["id"]}


@makes("archived_org_id")
def archived_organization(rooms: Rooms) -> Rows:
    """An organization that was archived."""
    made = spare_organization(rooms)["spare_org_id"]
    rooms.owner.ok("DELETE", f"/organizations/{made}")
    return {"archived_org_id": made}


@makes("invitation_id", "invitation_token")
def invitation(rooms: Rooms) -> Rows:
    """An invitation of somebody with a confirmed address, and the secret of its mail."""
    invited = leaver(rooms)
    email = invited["leaver_email"]
    rooms.cast.databases.rows("identity", "UPDATE users SET is_verified = true WHERE email = $1", email)
    body = {"email": email, "role_id": rooms.cast.roles["member"]}
    made = rooms.owner.post(f"/organizations/{rooms.cast.tenant.organization_id}/invitations", body)
    token = eventually(lambda: mailed(rooms, email, INVITATION_TOKEN), "the mail of the invitation")
    return {"invitation_id": made["id"], "invitation_token": token, **invited}


@makes("credential_name", fleeting=True)
def credential(rooms: Rooms) -> Rows:
    """A key for a provider that somebody keeps here."""
    keeper = leaver(rooms)
    answer = rooms.cast.world.http.post(
        "/api/v1/credentials/anthropic",
        json={"api_key": "sk-ant-0123456789", "name": "mine", "base_url": "https://provider.invalid"},
        headers={"Authorization": f"Bearer {keeper['leaver_token']}"},
    )
    assert answer.is_success, answer.text
    return {"credential_name": "mine", **keeper}


@makes("member_id")
def member(rooms: Rooms) -> Rows:
    """A member of the organization."""
    body = {"user_id": rooms.cast.world.register().user_id, "role_id": rooms.cast.roles["member"]}
    made = rooms.owner.post(f"/organizations/{rooms.cast.tenant.organization_id}/members", body)
    return {"member_id": made["id"]}


@makes("role_id")
def role(rooms: Rooms) -> Rows:
    """A role of the organization."""
    body = {"name": f"role {secrets.token_hex(4)}", "permissions": ["ticket:read"]}
    return {"role_id": rooms.owner.post(f"/organizations/{rooms.cast.tenant.organization_id}/roles", body)["id"]}


@makes("key_id")
def key(rooms: Rooms) -> Rows:
    """An API key of the owner."""
    return {"key_id": rooms.owner.post("/auth/api-keys", {"name": "to end"})["id"]}


@makes("unique")
def unique(_rooms: Rooms) -> Rows:
    """Letters and digits that nothing else has."""
    return {"unique": secrets.token_hex(6)}


# Workflow


@makes("spare_project_id")
def spare_project(rooms: Rooms) -> Rows:
    """A project without a repository, that may be archived."""
    body = {"organization_id": rooms.cast.tenant.organization_id, "name": f"Spare {secrets.token_hex(4)}"}
    return {"spare_project_id": rooms.owner.post("/projects", body)["id"]}


@makes("spec_id", "req_id", "criterion_id", "spec_task_id", "spec_ticket_id")
def spec(rooms: Rooms) -> Rows:
    """A spec with a requirement, a criterion, two tasks and tickets."""
    body = {"project_id": rooms.cast.tenant.project_id, "engine": "plan", "plan": PLAN.format(number=next(_NUMBERS))}
    made = rooms.owner.post("/specs", body)
    requirement = made["requirements"][0]
    return {
        "spec_id": made["id"],
        "req_id": requirement["id"],
        "criterion_id": requirement["criteria"][0]["id"],
        "spec_task_id": made["tasks"][-1]["id"],
        "spec_ticket_id": rooms.owner.get(f"/specs/{made['id']}/linked-tickets")["tickets"][0]["id"],
    }


@makes("loose_spec_id", "loose_spec_task_id")
def loose_spec_task(rooms: Rooms) -> Rows:
    """A task of a spec that is no task of the queue yet."""
    made = spec(rooms)["spec_id"]
    task = rooms.owner.post(f"/specs/{made}/tasks", {"title": "Loose"})
    return {"loose_spec_id": made, "loose_spec_task_id": task["id"]}


@makes("executing_spec_id")
def executing_spec(rooms: Rooms) -> Rows:
    """A spec that is being executed."""
    made = spec(rooms)["spec_id"]
    rooms.owner.post(f"/specs/{made}/execute")
    return {"executing_spec_id": made}


@makes("paused_spec_id")
def paused_spec(rooms: Rooms) -> Rows:
    """A spec whose execution is paused."""
    made = executing_spec(rooms)["executing_spec_id"]
    rooms.owner.post(f"/specs/{made}/pause", {"reason": "pause"})
    return {"paused_spec_id": made}


@makes("ticket_id", "task_id")
def ticket(rooms: Rooms) -> Rows:
    """A ticket in the backlog with a task that waits to be claimed."""
    made = rooms.ticket(rooms.cast.tenant.project_id)
    return {"ticket_id": made, "task_id": rooms.task_of(made)}


@makes("free_ticket_id")
def free_ticket(rooms: Rooms) -> Rows:
    """A ticket that no spec has linked."""
    return {"free_ticket_id": rooms.ticket(rooms.cast.tenant.project_id)}


@makes("pending_ticket_id")
def pending_ticket(rooms: Rooms) -> Rows:
    """A ticket that waits for an approval, as all do with the setting OMOIOS_TICKET_HUMAN_REVIEW."""
    made = rooms.ticket(rooms.cast.tenant.project_id)
    rooms.cast.databases.rows(
        "workflow",
        "UPDATE tickets SET approval_status = 'pending_review', approval_deadline_at = now() + interval '1 hour' "
        "WHERE id = $1",
        made,
    )
    return {"pending_ticket_id": made}


@makes("blocked_ticket_id")
def blocked_ticket(rooms: Rooms) -> Rows:
    """A ticket that is blocked."""
    made = rooms.ticket(rooms.cast.tenant.project_id)
    rooms.owner.ok("POST", f"/tickets/{made}/block?blocker_type=dependency")
    return {"blocked_ticket_id": made}


@makes("tested_ticket_id")
def tested_ticket(rooms: Rooms) -> Rows:
    """A ticket that is being tested, so that it can be sent back to building."""
    made = rooms.ticket(rooms.cast.tenant.project_id)
    rooms.owner.post(f"/tickets/{made}/transition", {"to_status": "testing", "force": True})
    return {"tested_ticket_id": made}


@makes("failed_task_id")
def failed_task(rooms: Rooms) -> Rows:
    """A task that has failed for good."""
    made = ticket(rooms)["task_id"]
    rooms.owner.post(f"/tasks/{made}/fail", {"reason": "broken"})
    return {"failed_task_id": made}


@makes("earlier_task_id")
def earlier_task(rooms: Rooms) -> Rows:
    """A task on which another may depend."""
    return {"earlier_task_id": ticket(rooms)["task_id"]}


@makes("dependent_task_id", "dependency_task_id")
def dependent_task(rooms: Rooms) -> Rows:
    """A task that depends on another."""
    earlier, later = ticket(rooms)["task_id"], ticket(rooms)["task_id"]
    rooms.owner.post(f"/tasks/{later}/dependencies", {"depends_on": [earlier]})
    return {"dependent_task_id": later, "dependency_task_id": earlier}


@makes("result_id", "workflow_id")
def result(rooms: Rooms) -> Rows:
    """A result of a workflow that waits for a validation."""
    made = ticket(rooms)["ticket_id"]
    body = {"workflow_id": made, "markdown_file_path": "result.md"}
    return {"workflow_id": made, "result_id": rooms.owner.post("/submit_result", body)["result_id"]}


# Agents


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


# Monitoring


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


# Version control


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
    rooms.owner.post(
        f"/commits/ticket/{made['sandbox_ticket_id']}/link", {"commit_sha": sha, "agent_id": made["sandbox_agent_id"]}
    )
    return {"commit_sha": sha, "commit_ticket_id": made["sandbox_ticket_id"], **made}


@makes("head_sha")
def head(rooms: Rooms) -> Rows:
    """The newest commit of the tenant's repository."""
    return {"head_sha": git(rooms.cast.tenant.repository, "rev-parse", "HEAD").strip()}
