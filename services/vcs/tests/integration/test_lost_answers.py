"""A process that dies between its commit and its answer: the same Idempotency-Key has one effect and one answer."""

from __future__ import annotations

from typing import Any

import pytest

from servicekit.db import idempotency
from vcs_service.mirror import rules as mirror_rules

from .conftest import Vcs, git

BRANCHES = "/api/v1/branch-workflow"


class Died(BaseException):
    """What ends a request as the end of its process would: nothing after the commit runs."""


async def test_a_branch_is_finished_and_merged_once(vcs: Vcs, monkeypatch: pytest.MonkeyPatch) -> None:
    async def die(*_: Any) -> None:
        raise Died

    project = await vcs.project()
    ticket = await vcs.ticket(project)
    headers = await vcs.user("member")
    asked = {"ticket_id": ticket, "ticket_title": "Lost", "ticket_type": "bug", "repo_owner": "o", "repo_name": "r"}
    started = (await vcs.http.post(f"{BRANCHES}/start", json=asked, headers=headers)).json()
    mirror = vcs.folder / "data" / "mirrors" / f"{project}.git"
    work = await vcs.work(project, "task-1", {"new.txt": "a\n"}, ticket_id=ticket)
    git("update-ref", mirror_rules.head_ref(started["branch_name"]), work, cwd=mirror)
    monkeypatch.setattr(idempotency, "complete", die)
    monkeypatch.setattr(idempotency, "release", die)

    finish = {"ticket_id": ticket, "ticket_title": "Lost", "branch_name": started["branch_name"]}
    lost = {"Idempotency-Key": "finish"} | headers
    first = await vcs.http.post(f"{BRANCHES}/finish", json=finish, headers=lost)
    again = await vcs.http.post(f"{BRANCHES}/finish", json=finish, headers=lost)
    assert (again.json(), again.headers["Idempotent-Replayed"]) == (first.json(), "true")

    # It dies with the merge committed and the branch not yet deleted.
    monkeypatch.setattr("vcs_service.mirror.repository_adapters.Mirrors.delete_ref", die)
    merge = {"ticket_id": ticket, "merge_method": "squash"}
    lost = {"Idempotency-Key": "merge"} | headers
    with pytest.raises(Died):
        await vcs.http.post(f"{BRANCHES}/merge", json=merge, headers=lost)
    merged = await vcs.http.post(f"{BRANCHES}/merge", json=merge, headers=lost)
    assert merged.json()["success"] is True, merged.text
    target = mirror_rules.head_ref(merged.json()["target_branch"])
    assert git("rev-parse", target, cwd=mirror) == merged.json()["merge_sha"]
    assert git("rev-list", "--count", f"{started['sha']}..{target}", cwd=mirror) == "1"
