"""Identity answers as its OpenAPI document says."""

from __future__ import annotations

from typing import Any

from tests.contract.conformance import conformance

EXCLUDED = {
    "auth.logout_everywhere": "ends the session, so that auth.logout, which is called, could not be",
    "auth_oauth.sign_in": "redirects to a provider",
    "auth_oauth.callback": "a provider redirects to it",
    "oauth.sign_in": "redirects to a provider",
    "oauth.callback": "a provider redirects to it",
    "credentials.validate_credential": "asks the real provider; test_credentials.py has it with one on loopback",
}
LAST = (
    "organizations.transfer_organization",
    "organizations.archive_organization",
    "users.delete_own",
    "auth.logout",
)


async def test_every_operation_answers_as_documented(identity: Any) -> None:
    owner = await identity.super_admin()
    organization = await identity.organization(owner)
    member, member_id = await identity.member(owner, organization, "member")
    rows = {
        "org_id": organization,
        "organization_id": organization,
        "user_id": member.id,
        "member_id": member_id,
        "role_id": await identity.role_id(owner, organization, "viewer"),
    }
    found = await conformance(identity.running, owner.headers, rows, excluded=EXCLUDED, last=LAST)
    assert not found.failures, found
    assert len(found.succeeded) >= 45, found
