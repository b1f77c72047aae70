"""Confirming addresses and setting passwords, by mails that a real SMTP server gets."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import contextmanager
from typing import Any

import bcrypt
import pytest
from sqlalchemy import event, text

from identity_service.auth.adapters import Argon2Passwords, RedisLoginGuard
from servicekit.testing.problems import assert_problem

from .conftest import PASSWORD, Identity, Start
from .smtp import Sink, serving, text_of
from .test_accounts import LOGIN, ME, REFRESH, eventually_refused

AUTH = "/api/v1/auth"
OTHER = "Entirely-0ther!"
TOKEN = re.compile(r"token=([\w-]+)")


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with serving() as running:
        yield running


@pytest.fixture
async def mailing(start: Start, sink: Sink) -> Identity:
    """The service with a mail server."""
    return await start(smtp_host="127.0.0.1", smtp_port=sink.port, smtp_security="none")


async def deliver(identity: Identity) -> None:
    """One run of the worker's job."""
    await next(job for job in identity.running.service.jobs if job.name == "send-mails").run()


async def post(identity: Identity, path: str, headers: dict[str, str] | None = None, **body: Any) -> Any:
    return await identity.http.post(f"{AUTH}{path}", json=body, headers=headers)


async def mailed_token(identity: Identity, sink: Sink, address: str) -> str:
    """The secret in the latest mail to an address."""
    await deliver(identity)
    found = TOKEN.search(text_of(sink.to(address)[-1]))
    assert found is not None
    return found[1]


class TestVerification:
    async def test_the_mailed_link_confirms_the_address_once(self, mailing: Identity, sink: Sink) -> None:
        ada = await mailing.person("ada@example.com")
        token = await mailed_token(mailing, sink, "ada@example.com")
        assert f"http://localhost:3000/verify-email?token={token}" in text_of(sink.mails[0])
        assert (await mailing.http.get(ME, headers=ada.headers)).json()["is_verified"] is False
        assert (await post(mailing, "/verify-email", token=token)).status_code == 200
        assert (await mailing.http.get(ME, headers=ada.headers)).json()["is_verified"] is True
        assert_problem(await post(mailing, "/verify-email", token=token), 400, "identity.bad_account_token")

    async def test_twenty_at_once_use_it_once(self, mailing: Identity, sink: Sink) -> None:
        await mailing.person("ada@example.com")
        token = await mailed_token(mailing, sink, "ada@example.com")
        answers = await asyncio.gather(*(post(mailing, "/verify-email", token=token) for _ in range(20)))
        assert sorted(answer.status_code for answer in answers) == [200] + [400] * 19

    async def test_only_the_digest_is_stored(self, mailing: Identity, sink: Sink) -> None:
        await mailing.person("ada@example.com")
        token = await mailed_token(mailing, sink, "ada@example.com")
        async with mailing.running.service.db.reader() as tx:
            for table in ("account_tokens", "mails", "outbox", "audit_log"):
                rows = (await tx.session.execute(text(f"SELECT row_to_json(t)::text FROM {table} t"))).scalars().all()
                assert not any(token in row for row in rows)

    @pytest.mark.parametrize("token", ["x", "A" * 43, "ü"])
    async def test_no_such_link(self, mailing: Identity, token: str) -> None:
        assert_problem(await post(mailing, "/verify-email", token=token), 400, "identity.bad_account_token")

    async def test_a_link_that_ran_out(self, mailing: Identity, sink: Sink) -> None:
        await mailing.person("ada@example.com")
        token = await mailed_token(mailing, sink, "ada@example.com")
        async with mailing.running.service.db.uow() as tx:
            await tx.session.execute(text("UPDATE account_tokens SET expires_at = now()"))
        assert_problem(await post(mailing, "/verify-email", token=token), 400, "identity.bad_account_token")

    async def test_a_link_of_another_purpose(self, mailing: Identity, sink: Sink) -> None:
        await mailing.person("ada@example.com")
        token = await mailed_token(mailing, sink, "ada@example.com")
        answer = await post(mailing, "/reset-password", token=token, new_password=OTHER)
        assert_problem(answer, 400, "identity.bad_account_token")

    async def test_another_mail_on_request_three_an_hour(self, mailing: Identity, sink: Sink) -> None:
        await mailing.person("ada@example.com")
        await deliver(mailing)
        first = TOKEN.search(text_of(sink.mails[0]))
        for _ in range(5):
            answer = await post(mailing, "/resend-verification", email="Ada@example.com")
            assert answer.status_code == 200
        await deliver(mailing)
        assert len(sink.to("ada@example.com")) == 3
        assert first is not None
        assert (await post(mailing, "/verify-email", token=first[1])).status_code == 200
        await post(mailing, "/resend-verification", email="ada@example.com")
        await deliver(mailing)
        assert len(sink.to("ada@example.com")) == 3

    async def test_an_unconfirmed_account_makes_no_organization(self, mailing: Identity, sink: Sink) -> None:
        ada = await mailing.person("ada@example.com")
        body = {"name": "Org", "slug": "org"}
        answer = await mailing.http.post("/api/v1/organizations", json=body, headers=ada.headers)
        assert_problem(answer, 403, "identity.email_not_verified")
        token = await mailed_token(mailing, sink, "ada@example.com")
        await post(mailing, "/verify-email", token=token)
        answer = await mailing.http.post("/api/v1/organizations", json=body, headers=ada.headers)
        assert answer.status_code == 201

    async def test_without_a_mail_server_nobody_is_asked_to_confirm(self, identity: Identity) -> None:
        await identity.organization(await identity.person())


class TestTakenAddress:
    async def test_its_owner_gets_one_mail_a_day(self, mailing: Identity, sink: Sink) -> None:
        await mailing.person("ada@example.com")
        for _ in range(3):
            assert (await post(mailing, "/register", email="ADA@example.com", password=PASSWORD)).status_code == 201
        await deliver(mailing)
        subjects = [mail["Subject"] for mail in sink.to("ada@example.com")]
        assert subjects == ["Confirm your e-mail address", "You have an OmoiOS account already"]


class TestReset:
    async def test_the_mailed_link_sets_another_password_once(self, mailing: Identity, sink: Sink) -> None:
        here = await mailing.person("ada@example.com")
        assert (await post(mailing, "/forgot-password", email="ADA@example.com")).status_code == 200
        token = await mailed_token(mailing, sink, "ada@example.com")
        answer = await post(mailing, "/reset-password", token=token, new_password=OTHER)
        assert answer.status_code == 200
        await eventually_refused(mailing, here.access_token)
        refused = await mailing.http.post(REFRESH, json={"refresh_token": here.refresh_token})
        assert_problem(refused, 401, "identity.bad_refresh_token")
        again = await mailing.login("ada@example.com", password=OTHER)
        assert (await mailing.http.get(ME, headers=again.headers)).json()["is_verified"] is True
        answer = await post(mailing, "/reset-password", token=token, new_password=PASSWORD)
        assert_problem(answer, 400, "identity.bad_account_token")
        await deliver(mailing)
        assert sink.to("ada@example.com")[-1]["Subject"] == "Your password was changed"

    async def test_whoever_took_the_address_without_proof_keeps_no_way_in(self, mailing: Identity, sink: Sink) -> None:
        eve = await mailing.person("ada@example.com")
        made = await post(mailing, "/api-keys", eve.headers, name="x")
        key = {"Authorization": f"Bearer {made.json()['key']}"}
        async with mailing.running.service.db.uow() as tx:
            await tx.session.execute(
                text(
                    "INSERT INTO oauth_identities (id, user_id, provider, provider_user_id, signs_in)"
                    " VALUES ('i', :user, 'github', '1', true)"
                ),
                {"user": eve.id},
            )
        await post(mailing, "/forgot-password", email="ada@example.com")
        token = await mailed_token(mailing, sink, "ada@example.com")
        assert (await post(mailing, "/reset-password", token=token, new_password=OTHER)).status_code == 200
        await eventually_refused(mailing, eve.access_token)
        await eventually_refused(mailing, key["Authorization"].removeprefix("Bearer "))
        async with mailing.running.service.db.reader() as tx:
            assert (await tx.session.execute(text("SELECT count(*) FROM oauth_identities"))).scalar_one() == 0

    async def test_a_weak_one_leaves_the_link_usable(self, mailing: Identity, sink: Sink) -> None:
        await mailing.person("ada.lovelace@example.com")
        await post(mailing, "/forgot-password", email="ada.lovelace@example.com")
        token = await mailed_token(mailing, sink, "ada.lovelace@example.com")
        for weak in ("short", "Ada.Lovelace1!"):
            answer = await post(mailing, "/reset-password", token=token, new_password=weak)
            assert answer.status_code == 422
            assert "new_password" in answer.json()["detail"][0]["loc"]
        assert (await post(mailing, "/reset-password", token=token, new_password=OTHER)).status_code == 200

    async def test_one_link_used_makes_the_others_worthless(self, mailing: Identity, sink: Sink) -> None:
        await mailing.person("ada@example.com")
        await post(mailing, "/forgot-password", email="ada@example.com")
        first = await mailed_token(mailing, sink, "ada@example.com")
        await post(mailing, "/forgot-password", email="ada@example.com")
        second = await mailed_token(mailing, sink, "ada@example.com")
        assert (await post(mailing, "/reset-password", token=first, new_password=OTHER)).status_code == 200
        answer = await post(mailing, "/reset-password", token=second, new_password=PASSWORD)
        assert_problem(answer, 400, "identity.bad_account_token")

    async def test_twenty_at_once_use_it_once(self, mailing: Identity, sink: Sink) -> None:
        await mailing.person("ada@example.com")
        await post(mailing, "/forgot-password", email="ada@example.com")
        token = await mailed_token(mailing, sink, "ada@example.com")
        answers = await asyncio.gather(
            *(post(mailing, "/reset-password", token=token, new_password=OTHER) for _ in range(20))
        )
        assert sorted(answer.status_code for answer in answers) == [200] + [400] * 19


class TestSameForStrangers:
    """Known and unknown addresses: the same statements and hashes, not the same time."""

    @pytest.mark.parametrize("path", ["/forgot-password", "/resend-verification"])
    async def test_asking_for_a_mail(self, mailing: Identity, sink: Sink, path: str) -> None:
        await mailing.person("ada@example.com")
        with statements(mailing) as known:
            first = await post(mailing, path, email="ada@example.com")
        with statements(mailing) as unknown:
            second = await post(mailing, path, email="bob@example.com")
        assert known == unknown
        assert first.json() == second.json()
        await deliver(mailing)
        assert sink.to("bob@example.com") == []

    async def test_signing_in_costs_a_hash(self, mailing: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
        await mailing.person("ada@example.com")
        hashes: list[str] = []
        verify = Argon2Passwords._verify

        def counted(self: Argon2Passwords, stored: str, password: str) -> bool:
            hashes.append(stored)
            return verify(self, stored, password)

        monkeypatch.setattr(Argon2Passwords, "_verify", counted)
        with statements(mailing) as known:
            await post(mailing, "/login", email="ada@example.com", password="x")
        with statements(mailing) as unknown:
            await post(mailing, "/login", email="bob@example.com", password="x")
        assert known == unknown
        parameters = [stored.split("$")[:4] for stored in hashes]
        assert len(parameters) == 2
        assert parameters[0] == parameters[1]

    async def test_registering_costs_a_hash_and_a_mail(
        self, mailing: Identity, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await mailing.person("ada@example.com")
        hashed: list[str] = []
        original = Argon2Passwords.hash

        async def counted(self: Argon2Passwords, password: str) -> str:
            hashed.append(password)
            return await original(self, password)

        monkeypatch.setattr(Argon2Passwords, "hash", counted)
        counts = []
        for email in ("ada@example.com", "bob@example.com"):
            with statements(mailing) as seen:
                await post(mailing, "/register", email=email, password=PASSWORD)
            counts.append([sum(table in statement for statement in seen) for table in ("mails", "account_tokens")])
        assert counts == [[1, 1], [1, 1]]
        assert len(hashed) == 2


class TestPasswords:
    async def test_a_bcrypt_hash_is_replaced_at_sign_in(self, identity: Identity) -> None:
        await identity.person("ada@example.com")
        old = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        await set_hash(identity, old)
        wrong = await identity.http.post(LOGIN, json={"email": "ada@example.com", "password": "x"})
        assert_problem(wrong, 401, "identity.bad_credentials")
        assert await hash_of(identity) == old
        await identity.login("ada@example.com")
        assert (await hash_of(identity)).startswith("$argon2id$v=19$m=19456,t=2,p=1$")
        await identity.login("ada@example.com")

    @pytest.mark.parametrize("damaged", ["$2b$04$short", "$argon2id$nonsense", "plain"])
    async def test_a_damaged_hash_fits_nothing(self, identity: Identity, damaged: str) -> None:
        await identity.person("ada@example.com")
        await set_hash(identity, damaged)
        answer = await identity.http.post(LOGIN, json={"email": "ada@example.com", "password": PASSWORD})
        assert_problem(answer, 401, "identity.bad_credentials")

    async def test_an_account_without_one_sets_its_first(self, mailing: Identity, sink: Sink) -> None:
        ada = await mailing.person("ada@example.com")
        there = await mailing.login("ada@example.com")
        taken = await post(mailing, "/set-password", ada.headers, new_password=OTHER)
        assert_problem(taken, 409, "identity.password_is_set")
        await set_hash(mailing, None)
        none = await post(mailing, "/change-password", ada.headers, current_password="x", new_password=OTHER)
        assert_problem(none, 400, "identity.no_password")
        refused = await post(mailing, "/login", email="ada@example.com", password=PASSWORD)
        assert_problem(refused, 401, "identity.bad_credentials")
        assert (await post(mailing, "/set-password", ada.headers, new_password=OTHER)).status_code == 200
        await mailing.login("ada@example.com", password=OTHER)
        await eventually_refused(mailing, there.access_token)
        assert (await mailing.http.get(ME, headers=ada.headers)).status_code == 200
        await deliver(mailing)
        assert sink.to("ada@example.com")[-1]["Subject"] == "Your password was changed"

    async def test_no_more_than_the_queue_hashes_at_once(self, start: Start) -> None:
        identity = await start(hashing_threads=1, hashing_queue=1)
        answers = await asyncio.gather(
            *(post(identity, "/login", email=f"p{number}@example.com", password="x") for number in range(20))
        )
        assert {answer.status_code for answer in answers} == {401, 503}
        busy = next(answer for answer in answers if answer.status_code == 503)
        assert_problem(busy, 503, "identity.busy")
        assert "retry-after" in busy.headers


class TestGuessing:
    async def test_a_thousand_at_once_are_counted_one_by_one(self, identity: Identity) -> None:
        await identity.person("ada@example.com")
        answers = await asyncio.gather(
            *(post(identity, "/login", email="ada@example.com", password="x") for _ in range(30))
        )
        assert sorted(answer.status_code for answer in answers) == [401] * 5 + [429] * 25
        locked = next(answer for answer in answers if answer.status_code == 429)
        assert_problem(locked, 429, "identity.locked_out")
        assert 800 < int(locked.headers["retry-after"]) <= 900

    async def test_strangers_lock_nobody_out_where_he_signed_in_before(self, identity: Identity) -> None:
        ada = await identity.person("ada@example.com")
        for number in range(25):
            await guess(identity, f"203.0.113.{number}")
        stranger = await guess(identity, "203.0.113.200")
        assert_problem(stranger, 429, "identity.locked_out")
        assert 1 <= int(stranger.headers["retry-after"]) <= 30
        assert (await identity.login("ada@example.com", ada.id)).access_token

    async def test_an_account_rests_longer_and_longer_but_never_for_long(self, identity: Identity) -> None:
        redis = identity.running.service.redis.raw
        guard = RedisLoginGuard(redis, failures=5, window_s=900)
        waits = []
        for number in range(28):
            await guard.begin("ada@example.com", f"203.0.113.{number}")
            rests = await redis.keys("identity:login-rest:*")
            waits.append(max(await redis.pttl(rests[0]), 0) / 1000 if rests else 0.0)
            await redis.delete("none", *rests)
        assert waits[:20] == [0.0] * 20
        expected = [1, 2, 4, 8, 16, 30, 30, 30]
        assert all(wait <= longest for wait, longest in zip(waits[20:], expected, strict=True))
        # Some of it has gone by when it is read: much, on a busy machine, of the short ones.
        assert all(wait > longest / 2 for wait, longest in list(zip(waits[20:], expected, strict=True))[3:])

    async def test_a_reset_password_ends_the_rest(self, mailing: Identity, sink: Sink) -> None:
        await mailing.person("ada@example.com")
        await mailing.running.service.redis.raw.flushdb()
        for number in range(25):
            await guess(mailing, f"203.0.113.{number}")
        await post(mailing, "/forgot-password", email="ada@example.com")
        token = await mailed_token(mailing, sink, "ada@example.com")
        await post(mailing, "/reset-password", token=token, new_password=OTHER)
        await mailing.login("ada@example.com", password=OTHER)

    async def test_the_lock_is_written_down_once(self, identity: Identity) -> None:
        await identity.person("ada@example.com")
        for _ in range(8):
            await post(identity, "/login", email="ada@example.com", password="x")
        async with identity.running.service.db.reader() as tx:
            actions = (await tx.session.execute(text("SELECT action FROM audit_log"))).scalars().all()
        assert actions.count("login_failed") == 5
        assert actions.count("login_blocked_lockout") == 1

    async def test_without_redis_nobody_signs_in(self, start: Start) -> None:
        identity = await start(redis_url="redis://127.0.0.1:1/0")
        answer = await post(identity, "/login", email="ada@example.com", password=PASSWORD)
        assert answer.status_code == 503
        assert "retry-after" in answer.headers


class TestSessions:
    async def test_listed_and_ended(self, identity: Identity) -> None:
        ada = await identity.person("ada@example.com")
        firefox = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}
        body = {"email": "ada@example.com", "password": PASSWORD}
        other = (await identity.http.post(LOGIN, json=body, headers=firefox)).json()
        identity.http.cookies.clear()
        listed = (await identity.http.get(f"{AUTH}/sessions", headers=ada.headers)).json()["sessions"]
        assert [item["is_current"] for item in listed] == [False, True]
        assert listed[0]["device"] == "Firefox on Linux"
        assert listed[0]["address"] == "127.0.0.1"
        assert listed[0]["last_used_at"] >= listed[0]["created_at"]
        path = f"{AUTH}/sessions/{listed[0]['id']}"
        eve = await identity.person()
        assert_problem(await identity.http.delete(path, headers=eve.headers), 404, "identity.session_not_found")
        assert (await identity.http.delete(f"{AUTH}/sessions/x", headers=ada.headers)).status_code == 422
        assert (await identity.http.delete(path, headers=ada.headers)).status_code == 200
        await eventually_refused(identity, other["access_token"])
        listed = (await identity.http.get(f"{AUTH}/sessions", headers=ada.headers)).json()["sessions"]
        assert len(listed) == 1
        assert_problem(await identity.http.delete(path, headers=ada.headers), 404, "identity.session_not_found")

    async def test_everywhere(self, identity: Identity) -> None:
        here, there = await identity.person("ada@example.com"), await identity.login("ada@example.com")
        answer = await identity.http.post(f"{AUTH}/logout-everywhere", headers=here.headers)
        assert answer.status_code == 200
        assert "Max-Age=0" in "".join(answer.headers.get_list("set-cookie"))
        for person in (here, there):
            await eventually_refused(identity, person.access_token)
            refused = await identity.http.post(REFRESH, json={"refresh_token": person.refresh_token})
            assert_problem(refused, 401, "identity.bad_refresh_token")

    async def test_a_replay_tells_the_owner_and_the_record(self, mailing: Identity, sink: Sink) -> None:
        ada = await mailing.person("ada@example.com")
        other = await mailing.login("ada@example.com")
        first = (await mailing.http.post(REFRESH, json={"refresh_token": ada.refresh_token})).json()
        await mailing.http.post(REFRESH, json={"refresh_token": first["refresh_token"]})
        for _ in range(2):
            replay = await mailing.http.post(REFRESH, json={"refresh_token": ada.refresh_token})
            assert_problem(replay, 401, "identity.bad_refresh_token")
        await deliver(mailing)
        subjects = [mail["Subject"] for mail in sink.to("ada@example.com")]
        assert subjects.count("A session of your account was ended") == 1
        async with mailing.running.service.db.reader() as tx:
            types = (await tx.session.execute(text("SELECT subject FROM outbox"))).scalars().all()
            actions = (await tx.session.execute(text("SELECT action FROM audit_log"))).scalars().all()
        assert types.count("identity.session.replayed.v1") == 1
        assert actions.count("refresh_token_reuse") == 1
        assert (await mailing.http.get(ME, headers=other.headers)).status_code == 200

    async def test_an_unsafe_method_by_cookie_needs_a_page_of_ours(self, identity: Identity) -> None:
        ada = await identity.person()
        cookie = {"Cookie": f"omoios_access_token={ada.access_token}"}
        for origin, status in ((None, 403), ("https://evil.example", 403), ("http://localhost:3000", 200)):
            headers = cookie | ({"Origin": origin} if origin else {})
            answer = await identity.http.patch(ME, json={"full_name": "A"}, headers=headers)
            assert answer.status_code == status
        assert (await identity.http.get(ME, headers=cookie)).status_code == 200


class TestWaitlist:
    async def test_who_waits_makes_no_organization_until_admitted(self, start: Start) -> None:
        identity = await start(waitlist=True)
        ada, bob = await identity.person("ada@example.com"), await identity.person("bob@example.com")
        root = await identity.person("root@example.com")
        body = {"name": "Org", "slug": "org"}
        refused = await identity.http.post("/api/v1/organizations", json=body, headers=ada.headers)
        assert refused.status_code == 403
        assert refused.json()["detail"]["error"] == "waitlist_pending"
        assert refused.json()["detail"]["waitlist_status"] == "pending"
        assert refused.json()["code"] == "identity.not_approved"
        for method, path in (("GET", ""), ("POST", f"/{ada.id}/approve"), ("POST", "/approve-all")):
            answer = await identity.http.request(method, f"{AUTH}/waitlist{path}", headers=ada.headers)
            assert_problem(answer, 403, "auth.forbidden")
        async with identity.running.service.db.uow() as tx:
            await tx.session.execute(text("UPDATE users SET is_super_admin = true WHERE email LIKE 'root%'"))
        headers = (await identity.login("root@example.com", root.id)).headers
        page = (await identity.http.get(f"{AUTH}/waitlist?limit=2", headers=headers)).json()
        assert [user["email"] for user in page["users"]] == ["ada@example.com", "bob@example.com"]
        assert (page["total"], page["limit"], page["offset"]) == (3, 2, 0)
        answer = await identity.http.post(f"{AUTH}/waitlist/{ada.id}/approve", headers=headers)
        assert answer.json()["user"]["waitlist_status"] == "approved"
        made = await identity.http.post("/api/v1/organizations", json=body, headers=ada.headers)
        assert made.status_code == 201
        answer = await identity.http.post(f"{AUTH}/waitlist/approve-all", headers=headers)
        assert answer.json()["count"] == 2
        made = await identity.http.post("/api/v1/organizations", json=body | {"slug": "b"}, headers=bob.headers)
        assert made.status_code == 201
        unknown = "/waitlist/00000000-0000-7000-8000-000000000000/approve"
        assert_problem(await post(identity, unknown, headers), 404, "identity.user_not_found")
        for bad in ("?limit=0", "?limit=201", "?offset=-1", "?status_filter=x"):
            answer = await identity.http.get(f"{AUTH}/waitlist{bad}", headers=headers)
            assert answer.status_code == 422
        assert (await post(identity, "/waitlist/x/approve", headers)).status_code == 422


@contextmanager
def statements(identity: Identity) -> Any:
    """The SQL that the service sends meanwhile, values left out."""
    seen: list[str] = []
    engine = identity.running.service.db.engine.sync_engine

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def guess(identity: Identity, address: str) -> Any:
    """A wrong password from a client address that the gateway reports."""
    body = {"email": "ada@example.com", "password": "x"}
    return await identity.http.post(LOGIN, json=body, headers={"X-Forwarded-For": address})


async def set_hash(identity: Identity, value: str | None) -> None:
    async with identity.running.service.db.uow() as tx:
        await tx.session.execute(text("UPDATE users SET password_hash = :value"), {"value": value})


async def hash_of(identity: Identity) -> str:
    async with identity.running.service.db.reader() as tx:
        return str((await tx.session.execute(text("SELECT password_hash FROM users"))).scalar_one())
