"""Work of a ticket that belongs to no spec, from the board to the user's repository."""

from __future__ import annotations

from typing import Any

from tests.e2e.world import Tenant, World, eventually, git

LARGE = 8_000_000
"""Bytes that do not compress, of a file that a task pushes through the gateway."""


def task(tenant: Tenant, ticket_id: str, command: str, *depends_on: str) -> Any:
    body = {
        "ticket_id": ticket_id,
        "title": command,
        "description": command,
        "task_type": "implement_feature",
        "phase_id": "PHASE_TESTING",
        "dependencies": {"depends_on": list(depends_on)},
        "execution_config": {"engine": "command", "commands": [command]},
    }
    return tenant.owner.post("/tasks", body)


def ticket(tenant: Tenant, title: str) -> str:
    """A ticket without the task that it begins with, which asks for a model."""
    made = tenant.owner.post("/tickets", {"title": title, "project_id": tenant.project_id})
    ticket_id = str(made.get("ticket_id") or made["id"])
    for own in tenant.owner.get("/tasks", ticket_id=ticket_id):
        tenant.owner.post(f"/tasks/{own['id']}/cancel")
    return ticket_id


def test_work_of_a_ticket_is_merged_before_what_waits_for_it_and_reaches_the_repository(world: World) -> None:
    tenant = world.tenant({"list.txt": "begin\n"})
    owner = tenant.owner
    ticket_id = ticket(tenant, "Two steps")
    write = task(tenant, ticket_id, "echo write >> list.txt")
    read = task(tenant, ticket_id, "grep -q write list.txt; echo read >> list.txt", write["id"])
    other_id = ticket(tenant, "On top of both")
    # The gateway once dropped the rest of a push that the service answered too early; small ones never showed it.
    other = task(tenant, other_id, f"grep -q read list.txt && head -c {LARGE} /dev/urandom > large", read["id"])
    owner.ok("PATCH", f"/projects/{tenant.project_id}", {"autonomous_execution_enabled": True})
    world.runner(tenant, slots=2)

    def merged() -> bool:
        found = [owner.get(f"/tasks/{one['id']}") for one in (write, read, other)]
        assert not [one for one in found if one["status"] == "failed"], found
        return [one["merge_state"] for one in found] == ["merged"] * 3

    eventually(merged, "all tasks are merged", 120)
    answer = owner.post("/branch-workflow/merge", {"ticket_id": ticket_id, "merge_method": "squash"})
    assert answer["success"], answer
    again = owner.post("/branch-workflow/merge", {"ticket_id": ticket_id, "merge_method": "squash"})
    assert again["success"], again
    assert again["merge_sha"] == answer["merge_sha"], "merged once"
    owner.post("/branch-workflow/push", {"project_id": tenant.project_id, "branch_name": answer["target_branch"]})
    shown = git(tenant.repository, "show", f"{answer['target_branch']}:list.txt")
    assert shown == "begin\nwrite\nread\n"
    assert len(git(tenant.repository, "log", "--format=%h", answer["target_branch"]).split()) == 2
    owner.post("/branch-workflow/push", {"project_id": tenant.project_id, "branch_name": f"ticket/{other_id}"})
    listed = git(tenant.repository, "ls-tree", "--name-only", f"ticket/{other_id}").split()
    assert {"list.txt", "large"} <= set(listed)

    def told() -> Any:
        found = owner.get("/costs/summary", scope_type="phase", scope_id="PHASE_TESTING")
        return found["record_count"] >= 2 and found

    assert eventually(told, "the costs of the phase are told")["total_cost"] > 0
    unknown = owner.call("GET", "/costs/summary", scope_type="phase", scope_id="PHASE_OF_THE_MOON")
    assert unknown.status_code == 404
