"""Monitoring answers as its OpenAPI document says."""

from __future__ import annotations

from typing import Any

from tests.contract.conformance import conformance

EXCLUDED = {"events.stream_events": "the answer has no end"}


async def test_every_operation_answers_as_documented(world: Any) -> None:
    await world.ticket("ticket-1")
    await world.logged(1)
    rows = {"organization_id": "org-1", "project_id": "project-1", "ticket_id": "ticket-1"}
    found = await conformance(world.running, world.auth(world.owner), rows, excluded=EXCLUDED)
    assert not found.failures, found
    assert len(found.succeeded) >= 5, found
