"""The end of an account: wished for, taken back, carried out, and told by mail; and who is added at that moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import httpx2
import pytest

from servicekit.db import engine
from servicekit.testing.problems import assert_problem

from .conftest import PASSWORD, Identity, Person, Start
from .smtp import Sink, serving, text_of

BASE = "/api/v1/users"
PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"
BODY = {"current_password": PASSWORD}


async def execute(identity: Identity, statement: str, *values: Any) -> Any:
    async with identity.running.service.db.uow() as tx:
        return await (await tx.connection()).fetch(statement, *values)


async def eventually(identity: Identity, person: Person, status: int, path: str = f"{BASE}/me") -> None:
    """What the caller is answered within the second that a revocation takes."""
    for _ in range(160):
        if (await identity.http.get(path, headers=person.headers)).status_code == status:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"not {status} after 8 s")


async def run_job(identity: Identity, name: str) -> Any:
    [job] = [job for job in identity.running.service.jobs if job.name == name]
    return await job.run()


class TestEnd:
    async def test_only_with_the_password_and_not_as_the_only_owner(self, identity: Identity) -> None:
        ada = await identity.person()
        organization = await identity.organization(ada)
        for body in (None, {"current_password": "wrong"}):
            refused = await identity.http.request("DELETE", f"{BASE}/me", json=body, headers=ada.headers)
            assert_problem(refused, 400, "identity.wrong_password")
        body = {"current_password": PASSWORD}
        alone = await identity.http.request("DELETE", f"{BASE}/me", json=body, headers=ada.headers)
        assert_problem(alone, 409, "identity.sole_owner")
        assert "Org" in alone.json()["detail"]
        assert alone.json()["organization_ids"] == organization
        await identity.http.delete(f"/api/v1/organizations/{organization}", headers=ada.headers)
        ended = await identity.http.request("DELETE", f"{BASE}/me", json=body, headers=ada.headers)
        assert ended.status_code == 202
        await eventually(identity, ada, 401)

    async def test_taken_back_within_the_grace_period(self, identity: Identity) -> None:
        ada = await identity.person()
        body = {"current_password": PASSWORD}
        ended = await identity.http.request("DELETE", f"{BASE}/me", json=body, headers=ada.headers)
        again = await identity.login(ada.email, ada.id)
        path = f"{BASE}/me/deletion"
        assert (await identity.http.get(path, headers=again.headers)).json() == ended.json()
        assert await run_job(identity, "erase-accounts") == 0
        assert (await identity.http.delete(path, headers=again.headers)).status_code == 204
        for answer in (
            await identity.http.get(path, headers=again.headers),
            await identity.http.delete(path, headers=again.headers),
        ):
            assert_problem(answer, 404, "identity.deletion_not_found")
        await execute(identity, "UPDATE account_deletions SET due_at = now()")
        assert await run_job(identity, "erase-accounts") == 0
        assert (await identity.http.get(f"{BASE}/me", headers=again.headers)).status_code == 200

    async def test_erased_when_its_time_has_come(self, start: Start) -> None:
        identity = await start(deletion_grace_days=0)
        ada, bob = await identity.person("ada@example.com"), await identity.person()
        organization = await identity.organization(bob)
        role = await identity.role_id(bob, organization, "owner")
        members = f"/api/v1/organizations/{organization}/members"
        await identity.http.post(members, json={"user_id": ada.id, "role_id": role}, headers=bob.headers)
        invoices = {"billing_email": "Ada@example.com"}
        changed = await identity.http.patch(f"/api/v1/organizations/{organization}", json=invoices, headers=bob.headers)
        assert changed.status_code == 200, changed.text
        await identity.http.patch(f"{BASE}/me", json={"full_name": "Ada Lovelace"}, headers=ada.headers)
        await identity.http.put(f"{BASE}/me/avatar", content=PNG, headers=ada.headers)
        made = await identity.http.post("/api/v1/auth/api-keys", json={"name": "k"}, headers=ada.headers)
        body = {"current_password": PASSWORD}
        assert (await identity.http.request("DELETE", f"{BASE}/me", json=body, headers=ada.headers)).status_code == 202
        assert await run_job(identity, "erase-accounts") == 1
        key = Person(ada.id, "", made.json()["key"], "")
        await eventually(identity, key, 401)
        [row] = await execute(identity, "SELECT * FROM users WHERE id = $1", ada.id)
        assert row["email"] == f"{ada.id}@deleted.invalid"
        assert (row["full_name"], row["password_hash"], row["is_active"]) == (None, None, False)
        assert row["deleted_at"] is not None
        for table in ("api_keys", "user_avatars", "organization_memberships", "account_deletions"):
            assert await execute(identity, f"SELECT 1 FROM {table} WHERE user_id = $1", ada.id) == []
        told = await execute(identity, "SELECT subject FROM outbox WHERE aggregate_id = $1 ORDER BY seq", ada.id)
        assert told[-1]["subject"] == "identity.user.deleted.v1"
        [account] = await execute(identity, "SELECT billing_email FROM organizations")
        assert account["billing_email"] is None
        updated = await execute(identity, "SELECT 1 FROM outbox WHERE subject = 'identity.organization.updated.v1'")
        assert len(updated) == 2, "billing learns of the address and of its end"
        left = (await identity.http.get(members, headers=bob.headers)).json()
        assert [item["user_id"] for item in left] == [bob.id]
        # The address is free again and means somebody else.
        again = await identity.person("ada@example.com")
        assert again.id != ada.id

    async def test_an_owner_who_became_the_only_one_stays_for_now(self, start: Start) -> None:
        identity = await start(deletion_grace_days=0)
        ada = await identity.person()
        body = {"current_password": PASSWORD}
        await identity.http.request("DELETE", f"{BASE}/me", json=body, headers=ada.headers)
        again = await identity.login(ada.email, ada.id)
        organization = await identity.organization(again)
        assert await run_job(identity, "erase-accounts") == 0
        assert (await identity.http.get(f"/api/v1/organizations/{organization}", headers=again.headers)).is_success
        [wish] = await execute(identity, "SELECT due_at > now() AS later FROM account_deletions")
        assert wish["later"]


class TestNotices:
    @pytest.fixture
    async def sink(self) -> AsyncIterator[Sink]:
        async with serving() as running:
            yield running

    @pytest.fixture
    async def mailing(self, start: Start, sink: Sink) -> Identity:
        smtp = {"smtp_host": "127.0.0.1", "smtp_port": sink.port, "smtp_security": "none"}
        return await start(**smtp, mail_from="Omoi <no-reply@example.com>", require_verified_email=False)

    async def test_each_step_is_told_once(self, mailing: Identity, sink: Sink) -> None:
        ada = await mailing.person("ada@example.com")

        async def subjects() -> list[str]:
            await run_job(mailing, "send-mails")
            return [str(mail["subject"]) for mail in sink.to(ada.email)][1:]

        wish = (await mailing.http.request("DELETE", f"{BASE}/me", json=BODY, headers=ada.headers)).json()
        again = await mailing.login(ada.email, ada.id)
        await mailing.http.request("DELETE", f"{BASE}/me", json=BODY, headers=again.headers)
        assert await subjects() == ["Your account will be deleted"]
        text = text_of(sink.to(ada.email)[-1])
        assert wish["due_at"][:4] in text
        assert "/settings" in text
        again = await mailing.login(ada.email, ada.id)
        assert (await mailing.http.delete(f"{BASE}/me/deletion", headers=again.headers)).status_code == 204
        assert await subjects() == ["Your account will be deleted", "Your account stays"]

        organization = await mailing.organization(again)
        await mailing.http.delete(f"/api/v1/organizations/{organization}", headers=again.headers)
        await mailing.http.request("DELETE", f"{BASE}/me", json=BODY, headers=again.headers)
        again = await mailing.login(ada.email, ada.id)
        await mailing.http.post(f"/api/v1/organizations/{organization}/restore", headers=again.headers)
        for _ in range(2):
            await execute(mailing, "UPDATE account_deletions SET due_at = now()")
            assert await run_job(mailing, "erase-accounts") == 0
        assert (await subjects())[2:] == ["Your account will be deleted", "Your account could not be deleted yet"]
        assert "Org" in text_of(sink.to(ada.email)[-1])

        await mailing.http.delete(f"/api/v1/organizations/{organization}", headers=again.headers)
        await execute(mailing, "UPDATE account_deletions SET due_at = now()")
        assert await run_job(mailing, "erase-accounts") == 1
        assert (await subjects())[4:] == ["Your account was deleted"]
        # Nothing in the database names the address any more, once the last mail is out.
        await run_job(mailing, "purge-mails")
        assert await execute(mailing, "SELECT template FROM mails WHERE recipient = $1", ada.email) == []


async def blocked(identity: Identity, number: int) -> None:
    """Waits until so many statements wait for the test's lock."""
    query = "SELECT count(*)::int AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    for _ in range(400):
        [row] = await execute(identity, f"{query} AND datname = current_database()")
        if row["n"] >= number:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{number} transactions do not wait")


class TestAddedAtThatMoment:
    """Two real transactions meet at the user's row, in either order: a member before his erasure, or not at all."""

    @pytest.mark.parametrize("way", ["add", "accept", "create"])
    @pytest.mark.parametrize("erased_first", [False, True])
    async def test_no_membership_outlives_the_account(
        self, start: Start, monkeypatch: pytest.MonkeyPatch, way: str, *, erased_first: bool
    ) -> None:
        # Both wait for the test's lock at once, on a busy machine longer than a request would.
        monkeypatch.setattr(engine, "LOCK_TIMEOUT_MS", 14_000)
        identity = await start(deletion_grace_days=0)
        ada, bob = await identity.person(), await identity.person()
        organization = await identity.organization(bob)
        await identity.http.request("DELETE", f"{BASE}/me", json=BODY, headers=ada.headers)
        ada = await identity.login(ada.email, ada.id)
        join = await self.joining(identity, way, ada, bob, organization)

        async def erase() -> int:
            return int(await run_job(identity, "erase-accounts"))

        # A connection of the test's own: a unit of work would be the tasks' context, too.
        holder = await asyncpg.connect(identity.running.service.settings.database_url)
        try:
            async with holder.transaction():
                await holder.execute("SELECT 1 FROM users WHERE id = $1 FOR UPDATE", ada.id)
                first = asyncio.create_task(erase() if erased_first else join())
                await blocked(identity, 1)
                second = asyncio.create_task(join() if erased_first else erase())
                await blocked(identity, 2)
        finally:
            await holder.close()
        results = await asyncio.gather(first, second)
        joined, erased = reversed(results) if erased_first else results
        assert isinstance(joined, httpx2.Response)
        if joined.is_success:
            assert erased == 0
            if way == "create":
                await execute(identity, "UPDATE organizations SET is_active = false WHERE owner_id = $1", ada.id)
            await execute(identity, "UPDATE account_deletions SET due_at = now()")
            assert await erase() == 1
        else:
            assert joined.status_code in (401, 404), joined.text
            assert erased == 1
        assert joined.is_success is not erased_first
        assert await execute(identity, "SELECT 1 FROM organization_memberships WHERE user_id = $1", ada.id) == []
        assert await execute(identity, "SELECT 1 FROM users WHERE id = $1 AND deleted_at IS NULL", ada.id) == []
        told = await execute(
            identity,
            "SELECT payload FROM outbox WHERE subject = 'identity.membership.changed.v1' AND aggregate_id LIKE $1"
            " ORDER BY seq DESC LIMIT 1",
            f"{ada.id}:%",
        )
        assert len(told) == (0 if erased_first else 1)

    async def joining(
        self, identity: Identity, way: str, ada: Person, bob: Person, organization: str
    ) -> Callable[[], Awaitable[httpx2.Response]]:
        """What makes Ada a member in this way."""
        role = await identity.role_id(bob, organization, "member")
        path = f"/api/v1/organizations/{organization}"
        body: dict[str, Any]
        if way == "create":
            path, body, who = "/api/v1/organizations", {"name": "Hers", "slug": "hers"}, ada
        elif way == "add":
            path, body, who = f"{path}/members", {"user_id": ada.id, "role_id": role}, bob
        else:
            sent = await identity.http.post(
                f"{path}/invitations", json={"email": ada.email, "role_id": role}, headers=bob.headers
            )
            path, who = "/api/v1/invitations/accept", ada
            body = {"token": sent.json()["accept_url"].rpartition("token=")[2]}

        async def call() -> httpx2.Response:
            answer: httpx2.Response = await identity.http.post(path, json=body, headers=who.headers)
            return answer

        return call
