"""Agents answers as its OpenAPI document says."""

from __future__ import annotations

from typing import Any

from tests.contract.conformance import conformance

EXCLUDED: dict[str, str] = {}


async def test_every_operation_answers_as_documented(world: Any) -> None:
    claim = await world.sandbox()
    rows = {
        "agent_id": claim["agent"]["agent_id"],
        "sandbox_id": claim["sandbox"]["id"],
        "task_id": "task-1",
        "organization_id": "org-1",
    }
    found = await conformance(world.running, world.auth(world.owner), rows, excluded=EXCLUDED)
    assert not found.failures, found
    assert len(found.succeeded) >= 15, found
