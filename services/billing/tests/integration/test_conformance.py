"""Billing answers as its OpenAPI document says."""

from __future__ import annotations

from typing import Any

from tests.contract.conformance import conformance

from .conftest import usage

EXCLUDED: dict[str, str] = {}
KNOWN = {"costs.get_summary": {"query": {"scope_type": "task", "scope_id": "task-1"}}}


async def test_every_operation_answers_as_documented(billing: Any) -> None:
    organization = billing.organization()
    await billing.tell(usage(task_id="task-1"), organization)
    rows = {"organization_id": organization, "org_id": organization}
    found = await conformance(billing.running, await billing.user(organization), rows, excluded=EXCLUDED, known=KNOWN)
    assert not found.failures, found
    assert not found.unreached, found
