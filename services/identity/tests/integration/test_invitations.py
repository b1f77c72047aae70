"""Invitations by mail, with a real SMTP server, and the hand-over, leaving and reopening of organizations."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from email.message import EmailMessage
from typing import Any

import pytest

from servicekit.testing.problems import assert_problem

from .conftest import Identity, Person, Start
from .smtp import Sink, serving, text_of

BASE = "/api/v1/organizations"
INVITATIONS = "/api/v1/invitations"


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with serving() as running:
        yield running


@pytest.fixture
async def mailing(start: Start, sink: Sink) -> Identity:
    """The service with a mail server and its jobs, so that mails really arrive."""
    return await start(
        worker=True,
        jobs=True,
        smtp_host="127.0.0.1",
        smtp_port=sink.port,
        smtp_security="none",
        mail_from="Omoi <no-reply@example.com>",
    )


async def confirmed(identity: Identity, email: str | None = None) -> Person:
    person = await identity.person(email)
    await execute(identity, "UPDATE users SET is_verified = true WHERE id = $1", person.id)
    return person


async def execute(identity: Identity, statement: str, *values: Any) -> Any:
    async with identity.running.service.db.uow() as tx:
        return await (await tx.connection()).fetch(statement, *values)


def invited(sink: Sink, address: str) -> list[EmailMessage]:
    """The invitations among the mails to an address."""
    return [mail for mail in sink.to(address) if "invites you" in str(mail["subject"])]


async def token_mailed_to(sink: Sink, address: str, number: int = 1) -> str:
    """The token of the newest of `number` invitations to an address."""
    for _ in range(400):
        mails = invited(sink, address)
        if len(mails) >= number:
            found = re.search(r"/invitations\?token=(\S+)", text_of(mails[number - 1]))
            assert found is not None
            return found.group(1)
        await asyncio.sleep(0.05)
    raise AssertionError("no mail arrived within 20 s")


class Tenant:
    """An organization and its owner."""

    def __init__(self, identity: Identity, owner: Person, organization: str) -> None:
        self.identity, self.owner, self.id = identity, owner, organization
        self.path = f"{BASE}/{organization}"

    async def invite(self, email: str, role: str = "member", by: Person | None = None, **body: Any) -> Any:
        role_id = await self.identity.role_id(self.owner, self.id, role)
        return await self.identity.http.post(
            f"{self.path}/invitations",
            json={"email": email, "role_id": role_id} | body,
            headers=(by or self.owner).headers,
        )

    async def link(self, email: str, role: str = "member") -> tuple[str, str]:
        """(invitation id, token), from a service without a mail server."""
        answer = await self.invite(email, role)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"], answer.json()["accept_url"].partition("token=")[2]


async def tenant_of(identity: Identity) -> Tenant:
    owner = await confirmed(identity)
    return Tenant(identity, owner, await identity.organization(owner))


async def answer(identity: Identity, person: Person, token: str, how: str = "accept") -> Any:
    return await identity.http.post(f"{INVITATIONS}/{how}", json={"token": token}, headers=person.headers)


class TestByMail:
    async def test_invited_by_mail_and_accepted_once(self, mailing: Identity, sink: Sink) -> None:
        tenant = await tenant_of(mailing)
        invited = await tenant.invite("Bob@Example.com")
        assert invited.status_code == 201, invited.text
        assert invited.json()["accept_url"] is None
        assert (invited.json()["email"], invited.json()["state"]) == ("bob@example.com", "pending")
        token = await token_mailed_to(sink, "bob@example.com")
        rows = await execute(mailing, "SELECT * FROM invitations")
        assert token not in str([dict(row) for row in rows])
        offered = (await mailing.http.post(f"{INVITATIONS}/lookup", json={"token": token})).json()
        assert (offered["organization_id"], offered["role_name"]) == (tenant.id, "member")
        bob = await confirmed(mailing, "bob@example.com")
        assert [item["id"] for item in (await mailing.http.get(INVITATIONS, headers=bob.headers)).json()["items"]] == [
            offered["id"]
        ]
        joined = await answer(mailing, bob, token)
        assert joined.status_code == 200, joined.text
        assert (joined.json()["user_id"], joined.json()["role_name"]) == (bob.id, "member")
        assert (await mailing.http.get(tenant.path, headers=bob.headers)).status_code == 200
        assert_problem(await answer(mailing, bob, token), 404, "identity.invitation_not_found")
        assert_problem(await tenant.invite("bob@example.com"), 409, "identity.already_member")
        actions = (await mailing.http.get(f"{tenant.path}/audit", headers=tenant.owner.headers)).json()["items"]
        assert [item["action"] for item in actions[:2]] == ["invitation.accepted", "invitation.sent"]

    async def test_a_resent_link_replaces_the_one_before(self, mailing: Identity, sink: Sink) -> None:
        tenant = await tenant_of(mailing)
        invitation = (await tenant.invite("bob@example.com")).json()["id"]
        first = await token_mailed_to(sink, "bob@example.com")
        again = await mailing.http.post(f"{tenant.path}/invitations/{invitation}/resend", headers=tenant.owner.headers)
        assert again.json()["sent_count"] == 2
        second = await token_mailed_to(sink, "bob@example.com", 2)
        bob = await confirmed(mailing, "bob@example.com")
        assert_problem(await answer(mailing, bob, first), 404, "identity.invitation_not_found")
        assert (await answer(mailing, bob, second)).status_code == 200
        assert len(invited(sink, "bob@example.com")) == 2


class TestAnswers:
    async def test_only_the_address_may_answer(self, identity: Identity) -> None:
        tenant = await tenant_of(identity)
        invitation, token = await tenant.link("bob@example.com")
        eve = await confirmed(identity)
        for how in ("accept", "decline"):
            assert_problem(await answer(identity, eve, token, how), 403, "identity.invitation_for_another")
            by_id = await identity.http.post(f"{INVITATIONS}/{invitation}/{how}", headers=eve.headers)
            assert_problem(by_id, 404, "identity.invitation_not_found")
        assert (await identity.http.get(INVITATIONS, headers=eve.headers)).json()["items"] == []
        unknown = await identity.http.post(f"{INVITATIONS}/lookup", json={"token": "omi_" + "x" * 43})
        assert_problem(unknown, 404, "identity.invitation_not_found")

    async def test_by_id_needs_a_confirmed_address(self, identity: Identity) -> None:
        tenant = await tenant_of(identity)
        invitation, _ = await tenant.link("bob@example.com")
        bob = await identity.person("bob@example.com")
        path = f"{INVITATIONS}/{invitation}/accept"
        assert_problem(await identity.http.post(path, headers=bob.headers), 404, "identity.invitation_not_found")
        await execute(identity, "UPDATE users SET is_verified = true WHERE id = $1", bob.id)
        assert (await identity.http.post(path, headers=bob.headers)).status_code == 200

    async def test_eight_acceptances_at_once_make_one_member(self, identity: Identity) -> None:
        tenant = await tenant_of(identity)
        _, token = await tenant.link("bob@example.com")
        bob = await confirmed(identity, "bob@example.com")
        answers = await asyncio.gather(*(answer(identity, bob, token) for _ in range(8)))
        assert sorted(item.status_code for item in answers) == [200] + [404] * 7
        members = (await identity.http.get(f"{tenant.path}/members", headers=tenant.owner.headers)).json()
        assert [item["email"] for item in members] == [tenant.owner.email, "bob@example.com"]

    @pytest.mark.parametrize("end", ["declined", "revoked", "expired", "archived"])
    async def test_an_ended_invitation_is_dead(self, identity: Identity, end: str) -> None:
        tenant = await tenant_of(identity)
        invitation, token = await tenant.link("bob@example.com")
        bob = await confirmed(identity, "bob@example.com")
        if end == "declined":
            assert (await answer(identity, bob, token, "decline")).status_code == 200
        elif end == "revoked":
            ended = await identity.http.delete(f"{tenant.path}/invitations/{invitation}", headers=tenant.owner.headers)
            assert ended.status_code == 200
        elif end == "expired":
            await execute(identity, "UPDATE invitations SET expires_at = now() - interval '1 second'")
        else:
            assert (await identity.http.delete(tenant.path, headers=tenant.owner.headers)).status_code == 200
        for how in ("accept", "decline"):
            assert_problem(await answer(identity, bob, token, how), 404, "identity.invitation_not_found")
        looked = await identity.http.post(f"{INVITATIONS}/lookup", json={"token": token})
        assert_problem(looked, 404, "identity.invitation_not_found")
        if end == "archived":
            return
        listed = await identity.http.get(
            f"{tenant.path}/invitations", params={"state": end}, headers=tenant.owner.headers
        )
        assert [item["id"] for item in listed.json()["items"]] == [invitation]
        # The address may be invited again.
        assert (await tenant.invite("bob@example.com")).status_code == 201


class TestInviting:
    async def test_who_may_invite_and_as_what(self, identity: Identity) -> None:
        tenant = await tenant_of(identity)
        admin, _ = await identity.member(tenant.owner, tenant.id, "admin")
        viewer, _ = await identity.member(tenant.owner, tenant.id, "viewer")
        stranger = await identity.person()
        assert_problem(await tenant.invite("a@example.com", "owner", admin), 403, "identity.role_exceeds_own")
        assert (await tenant.invite("a@example.com", "admin", admin)).status_code == 201
        assert_problem(await tenant.invite("a@example.com", "member", admin), 409, "identity.invitation_exists")
        assert_problem(await tenant.invite("b@example.com", "viewer", viewer), 403, "auth.forbidden")
        assert_problem(await tenant.invite("b@example.com", by=stranger), 404, "identity.organization_not_found")
        missing = {"email": "b@example.com", "role_id": str(uuid.uuid4())}
        unknown = await identity.http.post(f"{tenant.path}/invitations", json=missing, headers=admin.headers)
        assert_problem(unknown, 404, "identity.role_not_found")
        for body, field in (
            ({"email": "nobody", "role_id": str(uuid.uuid4())}, "email"),
            ({"email": "b@example.com"}, "role_id"),
            ({"email": "b@example.com", "role_id": str(uuid.uuid4()), "expires_in_days": 31}, "expires_in_days"),
        ):
            bad = await identity.http.post(f"{tenant.path}/invitations", json=body, headers=admin.headers)
            assert bad.status_code == 422
            assert any(field in problem["loc"] for problem in bad.json()["detail"])

    async def test_a_role_that_somebody_is_invited_to_stays(self, identity: Identity) -> None:
        tenant = await tenant_of(identity)
        made = await identity.http.post(f"{tenant.path}/roles", json={"name": "r"}, headers=tenant.owner.headers)
        assert (await tenant.invite("bob@example.com", "r")).status_code == 201
        gone = await identity.http.delete(f"{tenant.path}/roles/{made.json()['id']}", headers=tenant.owner.headers)
        assert_problem(gone, 409, "identity.role_in_use")

    async def test_the_list_has_pages(self, identity: Identity) -> None:
        tenant = await tenant_of(identity)
        ids = [(await tenant.link(f"p{number}@example.com"))[0] for number in range(3)]
        seen, token = [], None
        for _ in range(2):
            params = {"page_size": 2} | ({"page_token": token} if token else {})
            page = (
                await identity.http.get(f"{tenant.path}/invitations", params=params, headers=tenant.owner.headers)
            ).json()
            seen += [item["id"] for item in page["items"]]
            token = page["next_page_token"]
        assert (seen, token) == (list(reversed(ids)), None)

    async def test_an_eleventh_mail_is_refused(self, identity: Identity) -> None:
        tenant = await tenant_of(identity)
        invitation, _ = await tenant.link("bob@example.com")
        await execute(identity, "UPDATE invitations SET sent_count = 10")
        again = await identity.http.post(f"{tenant.path}/invitations/{invitation}/resend", headers=tenant.owner.headers)
        assert_problem(again, 409, "identity.too_many_invitations")


class TestOwnership:
    async def test_handed_over_to_a_member(self, identity: Identity) -> None:
        tenant = await tenant_of(identity)
        bob, bobs = await identity.member(tenant.owner, tenant.id, "viewer")
        admin, admins = await identity.member(tenant.owner, tenant.id, "admin")
        path = f"{tenant.path}/transfer"
        for body, person, status, code in (
            ({"member_id": admins}, admin, 403, "auth.forbidden"),
            ({"member_id": str(uuid.uuid4())}, tenant.owner, 404, "identity.member_not_found"),
        ):
            assert_problem(await identity.http.post(path, json=body, headers=person.headers), status, code)
        done = await identity.http.post(path, json={"member_id": bobs}, headers=tenant.owner.headers)
        assert done.json()["owner_id"] == bob.id
        members = (await identity.http.get(f"{tenant.path}/members", headers=bob.headers)).json()
        assert {item["user_id"]: item["role_name"] for item in members} == {
            tenant.owner.id: "admin",
            bob.id: "owner",
            admin.id: "admin",
        }
        # He may go now, and the new owner may not.
        left = await identity.http.post(f"{tenant.path}/leave", headers=tenant.owner.headers)
        assert left.status_code == 200
        assert_problem(
            await identity.http.post(f"{tenant.path}/leave", headers=bob.headers), 409, "identity.last_owner"
        )

    async def test_the_named_owner_follows_when_he_leaves(self, identity: Identity) -> None:
        tenant = await tenant_of(identity)
        bob, _ = await identity.member(tenant.owner, tenant.id, "owner")
        assert (await identity.http.post(f"{tenant.path}/leave", headers=tenant.owner.headers)).status_code == 200
        shown = (await identity.http.get(tenant.path, headers=bob.headers)).json()
        assert shown["owner_id"] == bob.id

    async def test_a_suspended_owner_does_not_count(self, identity: Identity) -> None:
        tenant = await tenant_of(identity)
        bob, _ = await identity.member(tenant.owner, tenant.id, "owner")
        await execute(identity, "UPDATE users SET is_active = false WHERE id = $1", bob.id)
        left = await identity.http.post(f"{tenant.path}/leave", headers=tenant.owner.headers)
        assert_problem(left, 409, "identity.last_owner")

    async def test_archived_and_opened_again_by_an_owner_only(self, identity: Identity) -> None:
        tenant = await tenant_of(identity)
        admin, _ = await identity.member(tenant.owner, tenant.id, "admin")
        stranger = await identity.person()
        restore = f"{tenant.path}/restore"
        active = await identity.http.post(restore, headers=tenant.owner.headers)
        assert_problem(active, 409, "identity.organization_is_active")
        assert (await identity.http.delete(tenant.path, headers=tenant.owner.headers)).status_code == 200
        for person in (admin, stranger):
            assert_problem(
                await identity.http.post(restore, headers=person.headers), 404, "identity.organization_not_found"
            )
            listed = await identity.http.get(BASE, params={"include_archived": True}, headers=person.headers)
            assert listed.json() == []
        listed = (await identity.http.get(BASE, params={"include_archived": True}, headers=tenant.owner.headers)).json()
        assert [(item["id"], item["is_active"]) for item in listed] == [(tenant.id, False)]
        opened = await identity.http.post(restore, headers=tenant.owner.headers)
        assert opened.json()["is_active"] is True
        for person in (tenant.owner, admin):
            assert (await identity.http.get(tenant.path, headers=person.headers)).status_code == 200

    async def test_fields_are_cleared_and_settings_bounded(self, identity: Identity) -> None:
        tenant = await tenant_of(identity)
        first = {"description": "d", "billing_email": "a@example.com", "settings": {"a": 1}}
        changed = await identity.http.patch(tenant.path, json=first, headers=tenant.owner.headers)
        assert changed.json()["settings"] == {"a": 1}
        cleared = (
            await identity.http.patch(
                tenant.path,
                json={"description": None, "billing_email": None, "name": None},
                headers=tenant.owner.headers,
            )
        ).json()
        assert (cleared["description"], cleared["billing_email"], cleared["name"]) == (None, None, "Org")
        large = await identity.http.patch(
            tenant.path, json={"settings": {"a": "x" * 70_000}}, headers=tenant.owner.headers
        )
        assert large.status_code == 422
        assert large.json()["detail"][0]["loc"][-1] == "settings"


class TestKeys:
    async def test_a_key_grants_no_more_than_its_scopes(self, identity: Identity) -> None:
        """An owner's key for members cannot make owners, though its owner could."""
        tenant = await tenant_of(identity)
        made = await identity.http.post(
            "/api/v1/auth/api-keys",
            json={"name": "k", "scopes": ["org:members:*", "org:read"], "organization_id": tenant.id},
            headers=tenant.owner.headers,
        )
        key = {"Authorization": f"Bearer {made.json()['key']}"}
        bob = await identity.person()
        owner = await identity.role_id(tenant.owner, tenant.id, "owner")
        body = {"user_id": bob.id, "role_id": owner}
        refused = await identity.http.post(f"{tenant.path}/members", json=body, headers=key)
        assert_problem(refused, 403, "identity.role_exceeds_own")
        role = await identity.http.post(
            f"{tenant.path}/roles", json={"name": "r", "permissions": ["org:read"]}, headers=tenant.owner.headers
        )
        body = {"user_id": bob.id, "role_id": role.json()["id"]}
        assert (await identity.http.post(f"{tenant.path}/members", json=body, headers=key)).status_code == 201


class TestInheritance:
    async def test_a_chain_has_an_end_and_a_parent_can_be_taken_away(self, identity: Identity) -> None:
        tenant = await tenant_of(identity)
        path = f"{tenant.path}/roles"

        async def role(name: str, parent: str | None) -> str:
            body = {"name": name, "permissions": [], "inherits_from": parent}
            made = await identity.http.post(path, json=body, headers=tenant.owner.headers)
            assert made.status_code == 201, made.text
            return str(made.json()["id"])

        upper, lower = [await role("a0", None)], [await role("b0", None)]
        for number in range(1, 6):
            upper.append(await role(f"a{number}", upper[-1]))
            lower.append(await role(f"b{number}", lower[-1]))
        # 5 above and 5 below and the link between them: 11 steps from the lowest to the highest.
        joined = await identity.http.patch(
            f"{path}/{lower[0]}", json={"inherits_from": upper[-1]}, headers=tenant.owner.headers
        )
        assert_problem(joined, 409, "identity.role_cycle")
        joined = await identity.http.patch(
            f"{path}/{lower[0]}", json={"inherits_from": upper[-2]}, headers=tenant.owner.headers
        )
        assert joined.json()["inherits_from"] == upper[-2]
        freed = await identity.http.patch(
            f"{path}/{lower[0]}", json={"inherits_from": None}, headers=tenant.owner.headers
        )
        assert freed.json()["inherits_from"] is None
