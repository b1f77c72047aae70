"""Workflow answers as its OpenAPI document says."""

from __future__ import annotations

from typing import Any

from tests.contract.conformance import conformance

EXCLUDED: dict[str, str] = {}


async def rows_of(flow: Any) -> dict[str, str]:
    """A project, a spec with a plan, and a ticket with a task."""
    project = await flow.project()
    spec = await flow.spec(project["id"])
    requirement = spec["requirements"][0]
    body = {"project_id": project["id"], "title": "A ticket", "phase_id": "PHASE_IMPLEMENTATION"}
    ticket = await flow.call("POST", "/tickets", json=body)
    tasks = await flow.call("GET", "/tasks")
    return {
        "organization_id": flow.organization,
        "project_id": project["id"],
        "spec_id": spec["id"],
        "req_id": requirement["id"],
        "criterion_id": requirement["criteria"][0]["id"],
        "ticket_id": ticket["id"],
        "workflow_id": ticket["id"],
        "task_id": (tasks if isinstance(tasks, list) else tasks["tasks"])[0]["id"],
    }


async def test_every_operation_answers_as_documented(flow: Any) -> None:
    found = await conformance(flow.running, flow.headers, await rows_of(flow), excluded=EXCLUDED)
    assert not found.failures, found
    assert len(found.succeeded) >= 70, found
