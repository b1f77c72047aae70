"""Billing answers as its OpenAPI document says."""

from __future__ import annotations

from typing import Any

from tests.contract.conformance import conformance

EXCLUDED: dict[str, str] = {}


async def test_every_operation_answers_as_documented(billing: Any) -> None:
    organization = billing.organization()
    rows = {"organization_id": organization, "org_id": organization}
    found = await conformance(billing.running, await billing.user(organization), rows, excluded=EXCLUDED)
    assert not found.failures, found
    assert len(found.succeeded) >= 5, found
