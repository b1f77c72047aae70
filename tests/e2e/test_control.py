"""Pausing, resuming and cancelling an execution."""

from __future__ import annotations

import time

from tests.e2e.test_runners import sleeping
from tests.e2e.world import World, eventually

HANGS = "7352"

PAUSED = """# Paused

## Tasks

### A: First
- Command: `sleep 2; echo a > a.txt`

### B: Second
- Depends: A
- Command: `echo b > b.txt`
"""

CANCELLED = f"""# Cancelled

## Tasks

### HANG: Hangs
- Command: `sleep {HANGS}`

### NEVER: Comes after
- Depends: HANG
- Command: `echo never > never.txt`
"""


def test_a_paused_execution_starts_nothing_until_it_is_resumed(world: World) -> None:
    tenant = world.tenant()
    owner = tenant.owner
    world.runner(tenant)
    spec = world.execute(tenant, PAUSED)
    eventually(lambda: world.tasks(tenant, spec)["A"]["status"] == "running", "the first task runs")
    assert owner.post(f"/specs/{spec['id']}/pause", {"reason": "lunch"})["status"] == "paused"
    # What runs goes on.
    eventually(lambda: world.tasks(tenant, spec)["A"]["merge_state"] == "merged", "the first task is merged", 60)
    time.sleep(3)
    second = world.tasks(tenant, spec)["B"]
    assert (second["status"], second["attempt"]) == ("pending", 0)
    assert "spec_paused" in str(owner.get(f"/tasks/{second['id']}/readiness"))
    assert owner.get(f"/specs/{spec['id']}/execution-status")["execution_status"] == "paused"
    assert owner.post(f"/specs/{spec['id']}/resume")["status"] == "executing"
    assert world.ended(tenant, spec)["execution_status"] == "completed"


def test_a_cancelled_execution_ends_its_sandboxes(world: World) -> None:
    tenant = world.tenant()
    owner = tenant.owner
    world.runner(tenant)
    spec = world.execute(tenant, CANCELLED)
    eventually(lambda: sleeping(HANGS), "the task runs")
    assert owner.post(f"/specs/{spec['id']}/cancel", {"reason": "enough"})["status"] == "cancelled"
    eventually(lambda: not sleeping(HANGS), "the sandbox's processes are gone")
    assert world.ended(tenant, spec)["execution_status"] == "cancelled"
    tasks = world.tasks(tenant, spec)
    assert {key: task["status"] for key, task in tasks.items()} == {"HANG": "cancelled", "NEVER": "cancelled"}
    assert owner.call("POST", f"/specs/{spec['id']}/cancel", {}).status_code == 409
    # The same spec can be executed again; nothing of the cancelled attempt holds it.
    begun = owner.post(f"/specs/{spec['id']}/execute")
    assert begun["status"] == "started"
    owner.post(f"/specs/{spec['id']}/cancel", {})


def test_an_organization_without_hours_is_told_why_nothing_runs(world: World) -> None:
    tenant = world.tenant()
    owner, path = tenant.owner, f"/organizations/{tenant.organization_id}"
    spec = world.execute(tenant, PAUSED)
    first = world.tasks(tenant, spec)["A"]["id"]

    def codes() -> list[str]:
        return [reason["code"] for reason in owner.get(f"/tasks/{first}/readiness")["reasons"]]

    assert codes() == []
    owner.ok("PATCH", path, {"max_agent_runtime_hours": 0})
    eventually(lambda: codes() == ["organization_out_of_hours"], "workflow has heard of the limit")
    assert "0.0 of the 0 hours" in owner.get(f"/tasks/{first}/readiness")["message"]
    owner.ok("PATCH", path, {"max_agent_runtime_hours": 100})
    eventually(lambda: codes() == [], "workflow has heard of the new limit")
    assert owner.call("PATCH", path, {"max_agent_runtime_hours": -1}).status_code == 422
    owner.post(f"/specs/{spec['id']}/cancel", {"reason": "shown"})
