"""Work goes on whatever dies: a runner, a service."""

from __future__ import annotations

import psutil

from tests.e2e.world import Tenant, World, eventually

# Seconds that no test waits for, different in each, so that a process can be told from others by its arguments.
HANGS = "7351"

TAKEOVER = f"""# Taken over

## Tasks

### HAND: Claimed by someone who dies
- Priority: critical
- Command: `echo "$OMOIOS_ATTEMPT" > hand.txt`

### RUN: Hangs in its first attempt
- Command: `test "$OMOIOS_ATTEMPT" -gt 1 || sleep {HANGS}`
- Command: `echo "$OMOIOS_ATTEMPT" > run.txt`
"""


def sleeping(seconds: str) -> bool:
    """Whether `sleep <seconds>` runs anywhere."""
    return any(process.info["cmdline"] == ["sleep", seconds] for process in psutil.process_iter(["cmdline"]))


def test_a_dead_runners_tasks_are_taken_over_and_its_late_writes_refused(world: World) -> None:
    tenant = world.tenant()
    owner = tenant.owner
    spec = world.execute(tenant, TAKEOVER)
    # One who claims by hand, as any program may, and is never heard of again.
    agent = owner.post(
        "/agents/register",
        {"agent_type": "worker", "capabilities": [], "capacity": 1, "organization_id": tenant.organization_id},
    )
    own = {"Authorization": f"Bearer {agent['token']}"}
    body = {"max": 1, "wait_s": 10}
    claimed = world.http.post(f"/api/v1/agents/{agent['agent_id']}/claim", json=body, headers=own).json()["claims"]
    assert [claim["task"]["title"] for claim in claimed] == ["Claimed by someone who dies"]
    dead = claimed[0]
    late = {"Authorization": f"Bearer {dead['sandbox']['token']}"}
    events = f"/api/v1/sandboxes/{dead['sandbox']['id']}/events"
    alive = {"event_type": "agent.output", "event_data": {"line": "alive"}, "source": "agent"}
    assert world.http.post(events, json=alive, headers=late).is_success

    killed = world.runner(tenant, slots=1)
    eventually(lambda: sleeping(HANGS), "the first runner works")
    killed.kill()
    eventually(lambda: not sleeping(HANGS), "nothing of the killed runner's sandbox is left")
    world.runner(tenant, slots=2)
    assert world.ended(tenant, spec)["execution_status"] == "completed"

    tasks = world.tasks(tenant, spec)
    assert {key: task["attempt"] for key, task in tasks.items()} == {"HAND": 2, "RUN": 2}
    # A lost lease is no failure of the task: no retry is used up.
    assert {key: task["retry_count"] for key, task in tasks.items()} == {"HAND": 0, "RUN": 0}
    refused = world.http.post(events, json=alive, headers=late)
    assert refused.status_code in (401, 409, 410), refused.text
    result = {"task_id": dead["task"]["id"], "success": True, "result": {"late": True}, "head_sha": ""}
    complete = f"/api/v1/sandboxes/{dead['sandbox']['id']}/task-complete"
    refused = world.http.post(complete, json=result, headers=late)
    assert refused.status_code in (401, 409, 410), refused.text
    clone = dead["repository"]["clone_url"]
    push = world.http.get(f"{clone}/info/refs?service=git-receive-pack", headers=late)
    assert push.status_code in (401, 403, 409), push.text
    assert "late" not in (owner.get(f"/tasks/{dead['task']['id']}")["result"] or {})
    merged = world.merged(tenant, spec)
    assert (merged / "hand.txt").read_text() == "2\n"
    assert (merged / "run.txt").read_text() == "2\n"


KILLS = "\n".join(
    [
        "# Services die\n\n## Tasks\n",
        *(f"### T{n}: Step {n}\n- Command: `sleep 1; echo {n} > {n}.txt`\n" for n in range(1, 5)),
        "### LAST: All of them\n- Depends: T1, T2, T3, T4\n- Command: `cat 1.txt 2.txt 3.txt 4.txt > all.txt`\n",
    ]
)


def test_an_execution_ends_although_services_are_killed_and_redis_loses_everything(world: World) -> None:
    tenant = world.tenant()
    world.runner(tenant, slots=2)
    spec = world.execute(tenant, KILLS)
    # Redis writes nothing to disk: after its death it is as empty as after a flush.
    for part in ("workflow", "redis", "agents", "vcs"):
        eventually(
            lambda: any(task["status"] in ("assigned", "running") for task in tasks_now(tenant)), "something runs", 60
        )
        world.client.kill(part, "KILL")
        eventually(lambda part=part: ready(world, part), f"{part} is ready again", 60)
    assert world.ended(tenant, spec)["execution_status"] == "completed"
    assert (world.merged(tenant, spec) / "all.txt").read_text() == "1\n2\n3\n4\n"


def tasks_now(tenant: Tenant) -> list[dict[str, str]]:
    """The tenant's tasks; none while the service is away, or when all have ended."""
    answer = tenant.owner.call("GET", "/tasks", project_id=tenant.project_id)
    if not answer.is_success:
        return []
    found: list[dict[str, str]] = answer.json()
    # When the work is over nothing runs any more; the loop must not wait for it then.
    return [{"status": "running"}] if all(task["status"] == "completed" for task in found) else found


def ready(world: World, part: str) -> bool:
    return any(unit["part"] == part and unit["state"] == "ready" for unit in world.client.status())
