"""Vcs answers as its OpenAPI document says."""

from __future__ import annotations

from typing import Any

from tests.contract.conformance import conformance

EXCLUDED: dict[str, str] = {}


async def test_every_operation_answers_as_documented(vcs: Any) -> None:
    project = await vcs.project()
    repository = await vcs.repository(project)
    rows = {
        "project_id": project,
        "ticket_id": await vcs.ticket(project),
        "commit_sha": repository.head_sha,
        "organization_id": "org-1",
    }
    found = await conformance(vcs.running, await vcs.user(), rows, excluded=EXCLUDED)
    assert not found.failures, found
    assert len(found.succeeded) >= 5, found
