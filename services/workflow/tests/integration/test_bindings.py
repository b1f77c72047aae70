"""Projects and the repositories they are bound to: tried again, changed meanwhile, named by a ticket."""

from __future__ import annotations

import asyncio
from typing import Any

from omoios.vcs.events.v1 import events_pb2 as vcs_events
from servicekit.errors import AppError, Kind

A, B = "https://example.test/a.git", "https://example.test/b.git"


async def state(flow: Any, project: Any) -> str:
    return str((await flow.call("GET", f"/projects/{project['id']}"))["repository_state"])


async def test_a_failed_repository_is_tried_again_when_it_is_named_again(flow: Any) -> None:
    flow.vcs.refuse = AppError("vcs.host_refused", "example.test is no public address.", Kind.REFUSED)
    project = await flow.project(repository_url=A)
    await flow.job("bind-repositories")()
    assert await state(flow, project) == "failed"
    flow.vcs.refuse = None
    again = await flow.call("PATCH", f"/projects/{project['id']}", json={"repository_url": A})
    assert (again["repository_state"], again["repository_error"]) == ("binding", None)
    await flow.job("bind-repositories")()
    assert await state(flow, project) == "mirroring"
    # One that has not failed is not disturbed by its own name.
    same = await flow.call("PATCH", f"/projects/{project['id']}", json={"repository_url": A})
    assert same["repository_state"] == "mirroring"


async def test_word_of_the_repository_before_does_not_end_a_binding(flow: Any) -> None:
    project = await flow.project(repository_url=A)
    await flow.job("bind-repositories")()
    ready = vcs_events.RepositoryReady(project_id=project["id"], url=A, default_branch="main", head_sha="f" * 40)
    failed = vcs_events.RepositoryFailed(project_id=project["id"], url=A, error="gone")
    await flow.deliver(ready, version=3)
    await flow.call("PATCH", f"/projects/{project['id']}", json={"repository_url": B})
    await flow.deliver(ready, version=4)
    await flow.deliver(failed, version=5)
    assert await state(flow, project) == "binding"
    flow.vcs.version = 6
    await flow.job("bind-repositories")()
    assert [one.url for one in flow.vcs.bound] == [A, B]
    # From here on its versions tell the mirrors apart.
    await flow.deliver(ready, version=4)
    await flow.deliver(failed, version=5)
    assert await state(flow, project) == "mirroring"
    await flow.deliver(vcs_events.RepositoryFailed(project_id=project["id"], url=B, error="gone"), version=7)
    assert await state(flow, project) == "failed"
    # The failure that is known already does not end the next try.
    await flow.call("PATCH", f"/projects/{project['id']}", json={"repository_url": B})
    await flow.deliver(vcs_events.RepositoryFailed(project_id=project["id"], url=B, error="gone"), version=7)
    assert await state(flow, project) == "binding"
    # What vcs says before its answer to the binding is written here is heard.
    ready.url = B.replace("example", "EXAMPLE")
    await flow.deliver(ready, version=9)
    assert await state(flow, project) == "ready"
    # Another branch of the same repository is another mirror.
    await flow.call("PATCH", f"/projects/{project['id']}", json={"default_branch": "next"})
    await flow.deliver(ready, version=10)
    assert await state(flow, project) == "binding"


async def test_a_ticket_on_a_repository_whose_name_is_taken(flow: Any) -> None:
    old = await flow.project(name="acme/site", github_owner="acme", github_repo="site")
    await flow.call("DELETE", f"/projects/{old['id']}")
    await flow.project(name="acme/site (2)")
    body = {"title": "One", "github_owner": "acme", "github_repo": "site", "check_duplicates": False}
    made = await asyncio.gather(*(flow.call("POST", "/tickets", json=body) for _ in range(4)))
    (project,) = {one["project_id"] for one in made}
    assert (await flow.call("GET", f"/projects/{project}"))["name"] == "acme/site (3)"
