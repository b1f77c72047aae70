"""Vcs answers as its OpenAPI document says."""

from __future__ import annotations

from typing import Any

from tests.contract.conformance import conformance

EXCLUDED: dict[str, str] = {}
UNREACHED = {
    "branch_workflow.push_branch": "only a merge makes a branch that may be pushed; test_api.py has it",
}


async def test_every_operation_answers_as_documented(vcs: Any) -> None:
    project = await vcs.project()
    repository = await vcs.repository(project)
    ticket, user = await vcs.ticket(project), await vcs.user()
    linked = await vcs.http.post(
        f"/api/v1/commits/ticket/{ticket}/link",
        json={"commit_sha": repository.head_sha, "agent_id": "agent-1"},
        headers=user,
    )
    assert linked.status_code == 200, linked.text
    rows = {
        "project_id": project,
        "ticket_id": ticket,
        "commit_sha": repository.head_sha,
        "organization_id": "org-1",
    }
    known: dict[str, dict[str, Any]] = {
        "branch_workflow.branch_status": {"body": {"ticket_id": ticket, "branch_name": "other"}},
        "branch_workflow.finish_branch": {"body": {"ticket_id": ticket, "branch_name": "other"}},
        "commits.link_commit": {
            "path_parameters": {"ticket_id": ticket},
            "body": {"commit_sha": "a" * 40, "agent_id": "agent-1"},
        },
    }
    found = await conformance(vcs.running, user, rows, excluded=EXCLUDED, known=known)
    assert not found.failures, found
    assert found.unreached == UNREACHED.keys(), found
