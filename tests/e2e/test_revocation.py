"""A sign-out and a removed member are known to every service within seconds, also where his agents are at work."""

from __future__ import annotations

from tests.e2e.live import stream
from tests.e2e.world import Person, Tenant, World, eventually


def agent_of(tenant: Tenant) -> str:
    """A new agent of the tenant."""
    body = {"agent_type": "worker", "capabilities": [], "capacity": 1, "organization_id": tenant.organization_id}
    return str(tenant.owner.post("/agents/register", body)["agent_id"])


def doors(tenant: Tenant, agent_id: str) -> dict[str, str]:
    """Service → a path of it that a member of the tenant may read, and others not."""
    return {
        "identity": f"/organizations/{tenant.organization_id}",
        "workflow": f"/projects/{tenant.project_id}",
        "agents": f"/agents/{agent_id}",
        "monitoring": "/monitor/dashboard",
        "billing": f"/billing/account/{tenant.organization_id}",
        "vcs": f"/git/{tenant.project_id}.git/info/refs?service=git-upload-pack",
    }


def opened(person: Person, tenant: Tenant, agent_id: str) -> dict[str, int]:
    """Service → the status that it answers this person."""
    return {service: person.call("GET", path).status_code for service, path in doors(tenant, agent_id).items()}


def test_a_sign_out_ends_the_session_everywhere(world: World, first: Tenant) -> None:
    person = world.register()
    tenant = Tenant(person, "", "", first.repository)
    made = person.post("/organizations", {"name": "Leaving", "slug": f"leaving-{person.user_id}"})
    project = person.post(
        "/projects", {"organization_id": made["id"], "name": "P", "repository_url": str(first.repository)}
    )
    tenant.organization_id, tenant.project_id = made["id"], project["id"]
    agent = agent_of(tenant)
    eventually(
        lambda: set(opened(person, tenant, agent).values()) == {200}, f"all doors open: {opened(person, tenant, agent)}"
    )
    with stream(world, person.token) as live:
        assert person.call("POST", "/auth/logout").is_success
        assert live.wait_closed() == 4401
    eventually(lambda: set(opened(person, tenant, agent).values()) == {401}, "every service refuses the token")
    refreshed = world.http.post("/api/v1/auth/refresh", json={"refresh_token": person.refresh_token})
    assert refreshed.status_code == 401
    # Another session of the same person is another session.
    world.sign_in(person)
    assert set(opened(person, tenant, agent).values()) == {200}


def test_a_removed_member_is_a_stranger_everywhere(world: World, first: Tenant) -> None:
    member = world.register()
    agent = agent_of(first)
    organization = f"/organizations/{first.organization_id}"
    roles = {role["name"]: role["id"] for role in first.owner.get(f"{organization}/roles")}
    joined = first.owner.post(f"{organization}/members", {"user_id": member.user_id, "role_id": roles["member"]})
    # The dashboard shows whoever asks his own organizations; for monitoring the stream below is what counts.
    readable = {"identity", "workflow", "agents", "billing", "vcs"}
    eventually(
        lambda: all(opened(member, first, agent)[service] == 200 for service in readable), "all know the new member"
    )
    with stream(world, member.token) as live:
        first.owner.ok("DELETE", f"{organization}/members/{joined['id']}")
        eventually(
            lambda: all(opened(member, first, agent)[service] in (403, 404) for service in readable),
            "every service treats him as a stranger",
        )
        made = first.owner.post("/specs", {"project_id": first.project_id, "title": "After he left"})
        # Not 4401, which would have him sign in again: his session is good, there is only nothing left to hear.
        assert live.wait_closed() == 1008
        assert made["id"] not in str(live.frames)


def test_a_key_that_an_owner_ends_opens_nothing_any_more(world: World, first: Tenant) -> None:
    member = world.register()
    agent = agent_of(first)
    organization = f"/organizations/{first.organization_id}"
    roles = {role["name"]: role["id"] for role in first.owner.get(f"{organization}/roles")}
    first.owner.post(f"{organization}/members", {"user_id": member.user_id, "role_id": roles["member"]})
    eventually(lambda: opened(member, first, agent)["workflow"] == 200, "the member is known")
    key = member.post("/auth/api-keys", {"name": "k", "scopes": ["*:*"], "organization_id": first.organization_id})
    bearer = Person(world.http, "", member.user_id, key["key"], "")
    eventually(lambda: set(opened(bearer, first, agent).values()) == {200}, "every service takes the key")
    first.owner.ok("DELETE", f"{organization}/api-keys/{key['id']}")
    eventually(lambda: set(opened(bearer, first, agent).values()) == {401}, "every service refuses it")
    assert opened(member, first, agent)["workflow"] == 200


TAKEN = """# Taken from somebody who was removed

## Tasks

### ONLY: In the hands of a former member
- Command: `echo "$OMOIOS_ATTEMPT" > attempt.txt`
"""


def test_a_removed_members_agents_end_and_their_work_goes_on_without_them(world: World) -> None:
    tenant = world.tenant()
    owner, member = tenant.owner, world.register()
    organization = f"/organizations/{tenant.organization_id}"
    permissions = ["org:read", "project:read", "ticket:read", "task:write", "agent:write", "agent:read"]
    role = owner.post(f"{organization}/roles", {"name": "operator", "permissions": permissions})
    joined = owner.post(f"{organization}/members", {"user_id": member.user_id, "role_id": role["id"]})
    body = {"agent_type": "worker", "capabilities": [], "capacity": 1, "organization_id": tenant.organization_id}
    eventually(lambda: member.call("GET", f"/projects/{tenant.project_id}").status_code == 200, "the member is known")
    agent = eventually(lambda: registered(member, body), "the member may have agents")
    kept = owner.post("/agents/register", body)
    spec = world.execute(tenant, TAKEN)
    own = {"Authorization": f"Bearer {agent['token']}"}
    claiming = f"/api/v1/agents/{agent['agent_id']}/claim"
    claimed = world.http.post(claiming, json={"max": 1, "wait_s": 20}, headers=own).json()["claims"]
    assert len(claimed) == 1
    sandbox = claimed[0]["sandbox"]
    at_work = {"Authorization": f"Bearer {sandbox['token']}"}
    calls = {
        "sandbox heartbeat": ("POST", f"/api/v1/sandboxes/{sandbox['id']}/heartbeat", {}, at_work),
        "sandbox event": (
            "POST",
            f"/api/v1/sandboxes/{sandbox['id']}/events",
            {"event_type": "agent.output", "event_data": {"line": "alive"}, "source": "agent"},
            at_work,
        ),
        "sandbox task": ("GET", f"/api/v1/tasks/{claimed[0]['task']['id']}", None, at_work),
        "repository": (
            "GET",
            f"{claimed[0]['repository']['clone_url']}/info/refs?service=git-upload-pack",
            None,
            at_work,
        ),
        "claim": ("POST", claiming, {"max": 1, "wait_s": 0}, own),
        "agent": ("GET", f"/api/v1/agents/{agent['agent_id']}", None, own),
    }

    def answers() -> dict[str, int]:
        return {
            name: world.http.request(method, path, json=content, headers=headers).status_code
            for name, (method, path, content, headers) in calls.items()
        }

    before = answers()
    assert all(status < 300 for status in before.values()), before
    with stream(world, member.token) as live:
        owner.ok("DELETE", f"{organization}/members/{joined['id']}")
        assert live.wait_closed() == 1008
    eventually(lambda: set(answers().values()) == {401}, "sandbox and agent are refused everywhere")
    assert owner.get(f"/agents/{agent['agent_id']}")["status"] == "TERMINATED"
    # The task is nobody's now, with no retry used up, and the next runner does it.
    eventually(
        lambda: owner.get(f"/tasks/{claimed[0]['task']['id']}")["sandbox_id"] in (None, ""), "the task was given back"
    )
    world.runner(tenant, slots=1)
    assert world.ended(tenant, spec)["execution_status"] == "completed"
    task = world.tasks(tenant, spec)["ONLY"]
    assert (task["attempt"], task["retry_count"]) == (2, 0)
    assert (world.merged(tenant, spec) / "attempt.txt").read_text() == "2\n"
    assert owner.get(f"/agents/{kept['agent_id']}")["status"] != "TERMINATED"


def registered(person: Person, body: dict[str, object]) -> dict[str, str] | None:
    """The new agent; None where the person may have none yet."""
    answer = person.call("POST", "/agents/register", body)
    return dict(answer.json()) if answer.is_success else None
