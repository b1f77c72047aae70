"""Two branches change the same place: the second becomes a task that does its work again."""

from __future__ import annotations

from tests.e2e.world import World, git

PLAN = """# Conflicting

## Tasks

### LEFT: Append left
- Command: `echo left >> list.txt; sleep 2`

### RIGHT: Append right
- Command: `echo right >> list.txt; sleep 2`

### AFTER: Needs both
- Depends: LEFT, RIGHT
- Command: `test "$(wc -l < list.txt)" -eq 3; sort list.txt > sorted.txt`
"""


def test_a_conflict_becomes_a_task_and_is_resolved(world: World) -> None:
    tenant = world.tenant({"list.txt": "begin\n"})
    world.runner(tenant, slots=2)
    spec = world.execute(tenant, PLAN)
    assert world.ended(tenant, spec)["execution_status"] == "completed"
    tasks = world.tasks(tenant, spec)
    assert {task["merge_state"] for task in tasks.values()} == {"merged"}
    resolved = [task for task in tasks.values() if task["resolution_task_id"]]
    assert len(resolved) == 1
    resolution = tenant.owner.get(f"/tasks/{resolved[0]['resolution_task_id']}")
    assert resolution["task_type"] == "resolve_conflict"
    assert resolution["resolves_task_id"] == resolved[0]["id"]
    assert (resolution["status"], resolution["merge_state"]) == ("completed", "merged")
    merged = world.merged(tenant, spec)
    assert (merged / "sorted.txt").read_text() == "begin\nleft\nright\n"
    # Every commit of the spec is linked to its ticket.
    works = git(merged, "log", "--first-parent", "--merges", "--format=%P", "HEAD").splitlines()
    assert len(works) == 3
    for parents in works:
        linked = tenant.owner.get(f"/commits/{parents.split()[1]}")
        assert linked["ticket_id"] in {task["ticket_id"] for task in tasks.values()}
    # The user's own repository has not been touched.
    assert git(tenant.repository, "branch", "--list").split() == ["*", "main"]
