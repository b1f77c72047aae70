"""The API keys of an organization's members, in the hands of its administrators; the events of its invitations."""

from __future__ import annotations

import asyncio
from typing import Any

from omoios.identity.events.v1 import events_pb2 as events
from servicekit.testing.problems import assert_problem

from .conftest import Identity, Person

KEYS = "/api/v1/auth/api-keys"


async def execute(identity: Identity, statement: str, *values: Any) -> Any:
    async with identity.running.service.db.uow() as tx:
        return await (await tx.connection()).fetch(statement, *values)


async def key_of(identity: Identity, person: Person, organization: str | None, name: str = "ci") -> dict[str, Any]:
    answer = await identity.http.post(
        KEYS, json={"name": name, "scopes": ["org:read"], "organization_id": organization}, headers=person.headers
    )
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_administrators_see_and_end_the_keys_of_all_members(identity: Identity) -> None:
    owner = await identity.person()
    organization = await identity.organization(owner)
    admin, _ = await identity.member(owner, organization, "admin")
    member, _ = await identity.member(owner, organization, "member")
    elsewhere = await identity.organization(member)
    path = f"/api/v1/organizations/{organization}/api-keys"
    hers = await key_of(identity, member, organization)
    owners = await key_of(identity, owner, organization)
    others = [await key_of(identity, member, None), await key_of(identity, member, elsewhere)]
    page = (await identity.http.get(path, params={"page_size": 1}, headers=admin.headers)).json()
    assert [item["id"] for item in page["items"]] == [owners["id"]]
    rest = await identity.http.get(path, params={"page_token": page["next_page_token"]}, headers=admin.headers)
    [shown] = rest.json()["items"]
    assert (shown["id"], shown["user_id"], shown["key_prefix"]) == (hers["id"], member.id, hers["key"][:12])
    assert "key" not in shown
    for person, status, code in (
        (member, 403, "auth.forbidden"),
        (await identity.person(), 404, "identity.organization_not_found"),
    ):
        assert_problem(await identity.http.get(path, headers=person.headers), status, code)
        refused = await identity.http.delete(f"{path}/{hers['id']}", headers=person.headers)
        assert_problem(refused, status, code)
    # An administrator ends nobody's key who may more than he, and none that is bound elsewhere.
    refused = await identity.http.delete(f"{path}/{owners['id']}", headers=admin.headers)
    assert_problem(refused, 403, "identity.role_exceeds_own")
    for other in others:
        foreign = await identity.http.delete(f"{path}/{other['id']}", headers=owner.headers)
        assert_problem(foreign, 404, "identity.api_key_not_found")
    used = {"X-API-Key": hers["key"]}
    assert (await identity.http.get("/api/v1/users/me", headers=used)).status_code == 200
    for _ in range(2):
        ended = await identity.http.delete(f"{path}/{hers['id']}", headers=admin.headers)
        assert ended.status_code == 200, ended.text
    for _ in range(160):
        status = (await identity.http.get("/api/v1/users/me", headers=used)).status_code
        if status == 401:
            break
        await asyncio.sleep(0.05)
    assert status == 401
    assert (await identity.http.get("/api/v1/users/me", headers={"X-API-Key": others[0]["key"]})).status_code == 200
    trail = (await identity.http.get(f"/api/v1/organizations/{organization}/audit", headers=owner.headers)).json()
    [entry] = [item for item in trail["items"] if item["action"] == "api_key.ended"]
    assert (entry["actor_id"], entry["details"]["key_id"]) == (admin.id, hers["id"])
    told = await execute(
        identity,
        "SELECT payload FROM outbox WHERE subject = 'identity.principal.revoked.v1' AND aggregate_id = $1",
        f"api_key:{hers['id']}",
    )
    assert len(told) == 1


async def test_each_step_of_an_invitation_is_told_without_its_address(identity: Identity) -> None:
    owner = await identity.person()
    organization = await identity.organization(owner)
    path = f"/api/v1/organizations/{organization}/invitations"
    role = await identity.role_id(owner, organization, "member")

    async def invite(name: str) -> tuple[str, str]:
        answer = await identity.http.post(
            path, json={"email": f"{name}@example.com", "role_id": role}, headers=owner.headers
        )
        assert answer.status_code == 201, answer.text
        return answer.json()["id"], answer.json()["accept_url"].partition("token=")[2]

    accepted, token = await invite("accepted")
    bob = await identity.person("accepted@example.com")
    answer = await identity.http.post("/api/v1/invitations/accept", json={"token": token}, headers=bob.headers)
    assert answer.status_code == 200
    revoked, _ = await invite("revoked")
    assert (await identity.http.delete(f"{path}/{revoked}", headers=owner.headers)).status_code == 200
    expired, _ = await invite("expired")
    past = "UPDATE invitations SET sent_at = sent_at - make_interval(days => 31),"
    past += " expires_at = expires_at - make_interval(days => 31) WHERE id = $1"
    await execute(identity, past, expired)
    [job] = [job for job in identity.running.service.jobs if job.name == "expire-invitations"]
    assert await job.run() == 1
    assert await job.run() == 0
    again = await identity.http.post(f"{path}/{expired}/resend", headers=owner.headers)
    assert (again.status_code, again.json()["state"]) == (200, "pending")
    await execute(identity, past, expired)
    # Another one for the address ends the one that ran out; it cannot come back beside it.
    newer, _ = await invite("expired")
    refused = await identity.http.post(f"{path}/{expired}/resend", headers=owner.headers)
    assert_problem(refused, 409, "identity.invitation_exists")

    rows = await execute(
        identity,
        "SELECT subject, aggregate_id, version, payload FROM outbox WHERE aggregate_type = 'invitation' ORDER BY seq",
    )
    assert all(b"example.com" not in row["payload"] for row in rows)
    kinds = {
        "identity.invitation.sent.v1": events.InvitationSent,
        "identity.invitation.accepted.v1": events.InvitationAccepted,
        "identity.invitation.closed.v1": events.InvitationClosed,
    }
    told = []
    for row in rows:
        body: Any = kinds[row["subject"]].FromString(row["payload"])
        assert body.invitation_id == row["aggregate_id"]
        told.append((body.invitation_id, row["subject"].split(".")[2], getattr(body, "state", ""), row["version"]))
    assert told == [
        (accepted, "sent", "", 1),
        (accepted, "accepted", "", 2),
        (revoked, "sent", "", 1),
        (revoked, "closed", "revoked", 2),
        (expired, "sent", "", 1),
        (expired, "closed", "expired", 2),
        (expired, "sent", "", 2),
        (expired, "closed", "expired", 3),
        (newer, "sent", "", 1),
    ]
    trail = (await identity.http.get(f"/api/v1/organizations/{organization}/audit", headers=owner.headers)).json()
    assert sum(item["action"] == "invitation.expired" for item in trail["items"]) == 2
