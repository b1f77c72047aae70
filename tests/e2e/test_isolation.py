"""One tenant's things do not exist for another."""

from __future__ import annotations

from tests.e2e.live import stream
from tests.e2e.world import Tenant, World

PLAN = """# Shared with nobody

## Requirements

### REQ-1: Exists
THE SYSTEM SHALL have a file.

## Tasks

### ONE: Write a file
- Requirements: REQ-1
- Command: `echo one > one.txt`
"""


def test_a_tenant_sees_nothing_of_another(world: World, first: Tenant, other: Tenant) -> None:
    spec = world.spec(first, PLAN)
    ticket = first.owner.get("/tickets/list", project_id=first.project_id)["tickets"][0]["id"]
    task = spec["tasks"][0]["task_id"]
    stranger = other.owner
    project, organization = first.project_id, first.organization_id
    hidden = [
        ("GET", f"/organizations/{organization}", None),
        ("GET", f"/organizations/{organization}/members", None),
        ("GET", f"/projects/{project}", None),
        ("PATCH", f"/projects/{project}", {"name": "mine"}),
        ("GET", f"/projects/{project}/stats", None),
        ("GET", f"/specs/project/{project}", None),
        ("GET", f"/specs/{spec['id']}", None),
        ("POST", "/specs", {"project_id": project, "title": "mine"}),
        ("POST", f"/specs/{spec['id']}/execute", {}),
        ("POST", f"/specs/{spec['id']}/cancel", {}),
        ("GET", f"/tickets/{ticket}", None),
        ("PATCH", f"/tickets/{ticket}", {"title": "mine"}),
        ("GET", f"/tasks/{task}", None),
        ("POST", f"/tasks/{task}/cancel", {"reason": "mine"}),
        ("GET", f"/graph/dependency-graph/project/{project}", None),
        ("GET", f"/board/view?project_id={project}", None),
        ("GET", f"/commits/ticket/{ticket}", None),
        ("POST", "/branch-workflow/push", {"project_id": project, "branch_name": "omoios/x"}),
        ("GET", f"/billing/account/{organization}", None),
        ("GET", f"/billing/account/{organization}/costs/summary", None),
    ]
    answers = {f"{method} {path}": stranger.call(method, path, body) for method, path, body in hidden}
    seen = {name: answer.text[:200] for name, answer in answers.items() if answer.status_code != 404}
    assert not seen
    # The same calls by the owner are not 404, so that the list above cannot rot into wrong paths.
    readable = [(method, path) for method, path, _ in hidden if method == "GET"]
    gone = {path: first.owner.call(method, path).status_code for method, path in readable}
    assert {path for path, status in gone.items() if status != 200} == set()
    for path in ("/projects", "/tasks", "/agents", "/organizations"):
        listed = stranger.call("GET", path).text
        assert project not in listed, path
        assert organization not in listed, path
    repository = world.http.get(
        f"/api/v1/git/{project}.git/info/refs?service=git-upload-pack",
        headers={"Authorization": f"Bearer {stranger.token}"},
    )
    assert repository.status_code == 404


def test_a_stream_carries_its_own_tenants_events_only(world: World, first: Tenant, other: Tenant) -> None:
    with (
        stream(world, first.owner.token) as mine,
        stream(world, other.owner.token) as foreign,
        stream(world, other.owner.token, entity_ids=first.project_id) as curious,
    ):
        made = world.spec(first, PLAN)
        mine.until(lambda frame: frame["event_type"] == "SPEC_CREATED" and frame["entity_id"] == made["id"])
        own = world.spec(other, PLAN)
        # The other tenant's own event arrives after the first one's was sent: what is missing was not late.
        foreign.until(lambda frame: frame["event_type"] == "SPEC_CREATED" and frame["entity_id"] == own["id"])
        curious.drain(1.0)
        assert curious.frames == []
        text = str(foreign.frames)
        for secret in (made["id"], first.project_id, first.organization_id):
            assert secret not in text
        mine.drain(0.5)
        assert own["id"] not in str(mine.frames)
    # Without a credential there is no stream at all.
    for token in ("", "not-a-token"):
        with stream(world, token) as nobody:
            assert nobody.wait_closed() == 4401
            assert nobody.frames == []
            assert "error" in nobody.other[0]
