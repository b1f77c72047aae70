"""A worker of one's own, that knows the public address and its sandbox token only: no runner of ours has a part."""

from __future__ import annotations

import base64
from typing import Any

from tests.e2e.world import Tenant, World, eventually, git

PLAN = """# By hand

## Tasks

### HAND: Done by a program of one's own
- Command: `true`
"""


class Worker:
    """An agent that claims, and what it does with the token of its sandbox."""

    def __init__(self, world: World, tenant: Tenant) -> None:
        self._world = world
        body = {"agent_type": "worker", "capabilities": [], "organization_id": tenant.organization_id}
        agent = tenant.owner.post("/agents/register", body)
        claimed = self._call("POST", f"/agents/{agent['agent_id']}/claim", agent["token"], {"max": 1, "wait_s": 20})
        (self.claim,) = claimed["claims"]
        self.sandbox, self.token = self.claim["sandbox"]["id"], self.claim["sandbox"]["token"]

    def _call(self, method: str, path: str, token: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        answer = self._world.http.request(method, f"/api/v1{path}", json=body, headers=headers)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def get(self, path: str) -> Any:
        return self._call("GET", path, self.token)

    def post(self, path: str, body: Any) -> Any:
        return self._call("POST", path, self.token, body)

    def contents(self, after: str | None) -> list[str]:
        query = "" if after is None else f"?after={after}"
        return [message["content"] for message in self.get(f"/sandboxes/{self.sandbox}/messages{query}")]


def test_a_worker_of_one_s_own_talks_commits_to_its_ticket_s_branch_and_completes(world: World) -> None:
    tenant = world.tenant()
    owner = tenant.owner
    spec = world.execute(tenant, PLAN)
    worker = Worker(world, tenant)

    sent = [owner.post(f"/sandboxes/{worker.sandbox}/messages", {"content": f"message {n}"}) for n in (1, 2, 3)]
    # An answer that was lost on the way is given again, until it is acknowledged.
    assert worker.contents("") == worker.contents("") == ["message 1", "message 2", "message 3"]
    assert worker.contents(sent[1]["message_id"]) == ["message 3"]
    assert worker.contents(sent[2]["message_id"]) == []

    ticket = worker.claim["task"]["ticket_id"]
    started = worker.post("/branch-workflow/start", {"ticket_id": ticket, "ticket_title": "Done by hand"})
    assert started["success"], started
    branch = started["branch_name"]
    clone_url = worker.claim["repository"]["clone_url"]
    basic = base64.b64encode(f"sandbox:{worker.token}".encode()).decode()
    header = ("-c", f"http.extraHeader=Authorization: Basic {basic}")
    clone = world.directory / f"by-hand-{worker.sandbox}"
    clone.mkdir(parents=True)
    git(clone, *header, "clone", "--quiet", "--branch", branch, clone_url, ".")
    (clone / "by-hand.txt").write_text("by hand\n")
    git(clone, "add", "by-hand.txt")
    git(clone, "commit", "--quiet", "--message", "Do it by hand")
    git(clone, *header, "push", "--quiet", "origin", f"HEAD:{branch}")
    finished = worker.post("/branch-workflow/finish", {"ticket_id": ticket, "branch_name": branch})
    assert finished["success"], finished
    assert finished["commits"] == 1
    assert finished["head_sha"] == git(clone, "rev-parse", "HEAD").strip()
    status = worker.post("/branch-workflow/status", {"ticket_id": ticket, "branch_name": branch})
    assert (status["ahead_by"], status["has_conflicts"]) == (1, False)
    linked = eventually(lambda: owner.get(f"/commits/ticket/{ticket}")["commits"], "the commit is linked")
    assert [commit["commit_sha"] for commit in linked] == [finished["head_sha"]]

    # To merge is a person's decision.
    headers = {"Authorization": f"Bearer {worker.token}"}
    merge = {"ticket_id": ticket, "merge_method": "squash"}
    refused = world.http.post("/api/v1/branch-workflow/merge", json=merge, headers=headers)
    assert refused.status_code == 403, refused.text
    merged = owner.post("/branch-workflow/merge", merge)
    assert merged["success"], merged
    owner.post("/branch-workflow/push", {"project_id": tenant.project_id, "branch_name": merged["target_branch"]})
    assert git(tenant.repository, "show", f"{merged['target_branch']}:by-hand.txt") == "by hand\n"

    body = {"task_id": worker.claim["task"]["id"], "success": True, "result": {"by": "hand"}}
    assert worker.post(f"/sandboxes/{worker.sandbox}/task-complete", body)["new_status"] == "completed"
    assert world.ended(tenant, spec)["execution_status"] == "completed"
    assert world.tasks(tenant, spec)["HAND"]["status"] == "completed"
