"""Accounts and organizations that have everything as often as they may, and invitations that come too late."""

from __future__ import annotations

import secrets

from tests.e2e.access.rooms import Rooms, Rows, makes
from tests.e2e.access.rows import identity

# What identity allows of each, less the one that is made through the API.
API_KEYS, CREDENTIALS, INVITATIONS, ROLES, ROLE_DEPTH = 99, 49, 499, 99, 10


def multiply(rooms: Rooms, service: str, table: str, row_id: str, times: int, **unique: str) -> None:
    """So many copies of a row; `unique`: column → SQL of what must differ, where `n` is the copy's number."""
    columns = [
        one["column_name"]
        for one in rooms.cast.databases.rows(
            service,
            "SELECT column_name FROM information_schema.columns "
            "WHERE table_name = $1 AND is_identity = 'NO' ORDER BY ordinal_position",
            table,
        )
    ]
    own = {"id": "t.id || '-' || n", **unique}
    names = ", ".join(f'"{name}"' for name in columns)
    values = ", ".join(own.get(name, f't."{name}"') for name in columns)
    rooms.cast.databases.rows(
        service,
        f'INSERT INTO "{table}" ({names}) SELECT {values} FROM "{table}" t, generate_series(1, $2::int) n '
        "WHERE t.id = $1",
        row_id,
        times,
    )


@makes("hoarder_token", "hoarder_org_id", "hoarder_slug", "hoarder_member_id", "hoarder_invitation_id")
def hoarder(rooms: Rooms) -> Rows:
    """The sole owner of an organization who has everything as often as he may."""
    person, mark = rooms.cast.world.register(), secrets.token_hex(4)
    slug = f"hoard-{mark}"
    organization = person.post("/organizations", {"name": f"Hoard {mark}", "slug": slug})["id"]
    path = f"/organizations/{organization}"
    member = next(one for one in person.get(f"{path}/members") if one["user_id"] == person.user_id)
    invited = {"email": f"hoarded-{mark}@example.com", "role_id": rooms.cast.roles["member"]}
    invitation = person.post(f"{path}/invitations", invited)["id"]
    role = person.post(f"{path}/roles", {"name": "hoarded", "permissions": ["ticket:read"]})["id"]
    key = person.post("/auth/api-keys", {"name": "hoarded"})["id"]
    person.post("/credentials/anthropic", {"api_key": "sk-ant-0123456789", "name": "hoarded"})
    credential = rooms.cast.databases.rows(
        "identity", "SELECT id FROM user_credentials WHERE user_id = $1", person.user_id
    )[0]["id"]
    digest = "sha256((t.id || n)::bytea)"
    multiply(rooms, "identity", "invitations", invitation, INVITATIONS, email="n || t.email", digest=digest)
    multiply(rooms, "identity", "roles", role, ROLES, name="t.name || n")
    multiply(rooms, "identity", "api_keys", key, API_KEYS, digest=digest)
    multiply(rooms, "identity", "user_credentials", credential, CREDENTIALS, name="t.name || n", is_default="false")
    rooms.cast.databases.rows("identity", "UPDATE invitations SET sent_count = 10 WHERE id = $1", invitation)
    return {
        "hoarder_token": person.token,
        "hoarder_org_id": organization,
        "hoarder_slug": slug,
        "hoarder_member_id": member["id"],
        "hoarder_invitation_id": invitation,
    }


@makes("super_admin_id")
def super_admin(rooms: Rooms) -> Rows:
    """The super admin himself."""
    return {"super_admin_id": rooms.cast.people["super_admin"].user_id}


@makes("colleague_email", "joined_token", "joined_invitation_id", "joined_invitation_token")
def joined(rooms: Rooms) -> Rows:
    """Somebody who was invited and then became a member without answering."""
    person = rooms.cast.world.register()
    path = f"/organizations/{rooms.cast.tenant.organization_id}"
    made = rooms.owner.post(f"{path}/invitations", {"email": person.email, "role_id": rooms.cast.roles["member"]})
    token = identity.mailed(rooms, person.email, "/invitations")
    rooms.owner.post(f"{path}/members", {"user_id": person.user_id, "role_id": rooms.cast.roles["member"]})
    return {
        "colleague_email": person.email,
        "joined_token": person.token,
        "joined_invitation_id": made["id"],
        "joined_invitation_token": token,
    }


@makes("invited_email", "renewed_invitation_id")
def invited(rooms: Rooms) -> Rows:
    """An address whose first invitation expired and which was invited again."""
    path, email = f"/organizations/{rooms.cast.tenant.organization_id}", f"twice-{secrets.token_hex(4)}@example.com"
    body = {"email": email, "role_id": rooms.cast.roles["member"]}
    first = rooms.owner.post(f"{path}/invitations", body)["id"]
    rooms.cast.databases.rows(
        "identity",
        "UPDATE invitations SET sent_at = now() - interval '8 days', expires_at = now() - interval '1 day' "
        "WHERE id = $1",
        first,
    )
    rooms.owner.post(f"{path}/invitations", body)
    return {"invited_email": email, "renewed_invitation_id": first}


@makes("root_role_id", "root_role_name", "leaf_role_id")
def role_chain(rooms: Rooms) -> Rows:
    """The first and the last of as many roles as may inherit from one another."""
    path, name = f"/organizations/{rooms.cast.tenant.organization_id}/roles", f"chain {secrets.token_hex(3)}"
    chain: list[str] = []
    for depth in range(ROLE_DEPTH + 1):
        parent = {"inherits_from": chain[-1]} if chain else {}
        chain.append(rooms.owner.post(path, {"name": f"{name} {depth}", "permissions": []} | parent)["id"])
    return {"root_role_id": chain[0], "root_role_name": f"{name} 0", "leaf_role_id": chain[-1]}
