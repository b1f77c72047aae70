"""Projects, specs, tickets and tasks."""

from __future__ import annotations

import secrets

from tests.e2e.access.rooms import NUMBERS, Rooms, Rows, makes

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


@makes("spare_project_id")
def spare_project(rooms: Rooms) -> Rows:
    """A project without a repository, that may be archived."""
    body = {"organization_id": rooms.cast.tenant.organization_id, "name": f"Spare {secrets.token_hex(4)}"}
    return {"spare_project_id": rooms.owner.post("/projects", body)["id"]}


@makes("spec_id", "req_id", "criterion_id", "spec_task_id", "spec_ticket_id")
def spec(rooms: Rooms) -> Rows:
    """A spec with a requirement, a criterion, two tasks and tickets."""
    body = {"project_id": rooms.cast.tenant.project_id, "engine": "plan", "plan": PLAN.format(number=next(NUMBERS))}
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
