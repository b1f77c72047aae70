"""Accounts, organizations and what belongs to them."""

from __future__ import annotations

import secrets

from omoios_local.mailbox import Mailbox
from tests.e2e.access.callers import claims_of
from tests.e2e.access.rooms import Rooms, Rows, makes
from tests.e2e.world import PASSWORD


@makes("spare_org_id")
def spare_organization(rooms: Rooms) -> Rows:
    """An organization that may be closed; the viewer is a member."""
    mark = secrets.token_hex(4)
    made = rooms.owner.post("/organizations", {"name": f"Spare {mark}", "slug": f"spare-{mark}"})["id"]
    viewer = {"user_id": rooms.cast.people["viewer"].user_id, "role_id": rooms.cast.roles["viewer"]}
    rooms.owner.post(f"/organizations/{made}/members", viewer)
    return {"spare_org_id": made}


@makes("new_user_id")
def new_user(rooms: Rooms) -> Rows:
    """A user who is a member of nothing."""
    return {"new_user_id": rooms.cast.world.register().user_id}


@makes("leaver_email", "leaver_token", "leaver_refresh_token")
def leaver(rooms: Rooms) -> Rows:
    """Somebody with a session that may end."""
    person = rooms.cast.world.register()
    return {
        "leaver_email": person.email,
        "leaver_token": person.token,
        "leaver_refresh_token": person.refresh_token,
    }


@makes("spare_member_id", "spare_member_org_id")
def spare_member(rooms: Rooms) -> Rows:
    """A member of an organization that may be given away."""
    organization = spare_organization(rooms)["spare_org_id"]
    body = {"user_id": rooms.cast.world.register().user_id, "role_id": rooms.cast.roles["member"]}
    made = rooms.owner.post(f"/organizations/{organization}/members", body)
    return {"spare_member_org_id": organization, "spare_member_id": made["id"]}


@makes("archived_org_id")
def archived_organization(rooms: Rooms) -> Rows:
    """An organization that was archived."""
    made = spare_organization(rooms)["spare_org_id"]
    rooms.owner.ok("DELETE", f"/organizations/{made}")
    return {"archived_org_id": made}


@makes("invitation_id", "invitation_token")
def invitation(rooms: Rooms) -> Rows:
    """An invitation of somebody with a confirmed address, and the secret of its mail."""
    invited = leaver(rooms)
    email = invited["leaver_email"]
    body = {"email": email, "role_id": rooms.cast.roles["member"]}
    made = rooms.owner.post(f"/organizations/{rooms.cast.tenant.organization_id}/invitations", body)
    return {"invitation_id": made["id"], "invitation_token": mailed(rooms, email, "/invitations"), **invited}


@makes("credential_name", fleeting=True)
def credential(rooms: Rooms) -> Rows:
    """A key for a provider that somebody keeps here."""
    keeper = leaver(rooms)
    answer = rooms.cast.world.http.post(
        "/api/v1/credentials/anthropic",
        json={"api_key": "sk-ant-0123456789", "name": "mine", "base_url": "https://provider.invalid"},
        headers={"Authorization": f"Bearer {keeper['leaver_token']}"},
    )
    assert answer.is_success, answer.text
    return {"credential_name": "mine", **keeper}


@makes("member_id")
def member(rooms: Rooms) -> Rows:
    """A member of the organization."""
    body = {"user_id": rooms.cast.world.register().user_id, "role_id": rooms.cast.roles["member"]}
    made = rooms.owner.post(f"/organizations/{rooms.cast.tenant.organization_id}/members", body)
    return {"member_id": made["id"]}


@makes("colleague_id")
def colleague(rooms: Rooms) -> Rows:
    """A user who is a member of the organization."""
    user_id = rooms.cast.world.register().user_id
    body = {"user_id": user_id, "role_id": rooms.cast.roles["member"]}
    rooms.owner.post(f"/organizations/{rooms.cast.tenant.organization_id}/members", body)
    return {"colleague_id": user_id}


@makes("role_id")
def role(rooms: Rooms) -> Rows:
    """A role of the organization."""
    body = {"name": f"role {secrets.token_hex(4)}", "permissions": ["ticket:read"]}
    return {"role_id": rooms.owner.post(f"/organizations/{rooms.cast.tenant.organization_id}/roles", body)["id"]}


@makes("key_id")
def key(rooms: Rooms) -> Rows:
    """An API key of the owner."""
    return {"key_id": rooms.owner.post("/auth/api-keys", {"name": "to end"})["id"]}


@makes("member_key_id")
def member_key(rooms: Rooms) -> Rows:
    """An API key that a member made for the organization."""
    body = {"name": "to end", "organization_id": rooms.cast.tenant.organization_id}
    return {"member_key_id": rooms.owner.post("/auth/api-keys", body)["id"]}


@makes("unique")
def unique(_rooms: Rooms) -> Rows:
    """Letters and digits that nothing else has."""
    return {"unique": secrets.token_hex(6)}


def mailed(rooms: Rooms, address: str, path: str) -> str:
    """The secret of the newest mailed link to a page of the web client."""
    return Mailbox(rooms.cast.world.client.state.mail).secret(address, path)


@makes("unconfirmed_user_id", "confirmation_token", "unconfirmed_email")
def unconfirmed(rooms: Rooms) -> Rows:
    """Somebody who has not confirmed his address, and the secret of its mail."""
    email = f"unconfirmed-{secrets.token_hex(4)}@example.com"
    answer = rooms.cast.world.http.post("/api/v1/auth/register", json={"email": email, "password": PASSWORD})
    assert answer.is_success, answer.text
    return {
        "unconfirmed_user_id": answer.json()["id"],
        "unconfirmed_email": email,
        "confirmation_token": mailed(rooms, email, "/verify-email"),
    }


@makes("reset_token")
def reset(rooms: Rooms) -> Rows:
    """The secret of a mail to somebody who forgot his password."""
    email = leaver(rooms)["leaver_email"]
    answer = rooms.cast.world.http.post("/api/v1/auth/forgot-password", json={"email": email})
    assert answer.is_success, answer.text
    return {"reset_token": mailed(rooms, email, "/reset-password")}


@makes("session_id", fleeting=True)
def session(rooms: Rooms) -> Rows:
    """A session of somebody."""
    person = leaver(rooms)
    return {"session_id": str(claims_of(person["leaver_token"])["sid"]), **person}
