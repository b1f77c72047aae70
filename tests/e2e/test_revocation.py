"""A sign-out and a removed member are known to every service within seconds."""

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
        live.drain(2.0)
        assert made["id"] not in str(live.frames)
