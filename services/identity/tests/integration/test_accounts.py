"""Accounts and sessions through HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from sqlalchemy import text

from servicekit.testing.problems import assert_problem

from .conftest import PASSWORD, Identity, Start

REGISTER = "/api/v1/auth/register"
LOGIN = "/api/v1/auth/login"
REFRESH = "/api/v1/auth/refresh"
ME = "/api/v1/auth/me"


def claims_of(token: str) -> dict[str, Any]:
    body = token.split(".")[1]
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return decoded


class TestRegister:
    async def test_an_account_has_the_contract_s_fields(self, identity: Identity) -> None:
        answer = await identity.http.post(
            REGISTER,
            json={"email": "Ada@Example.com", "password": PASSWORD, "full_name": "Ada", "referral_source": "a friend"},
        )
        assert answer.status_code == 201
        body = answer.json()
        assert body["email"] == "ada@example.com"
        assert body["is_active"] is True
        assert body["is_verified"] is False
        assert body["is_super_admin"] is False
        assert body["waitlist_status"] == "approved"
        assert set(body) == {
            *("id", "email", "full_name", "department", "is_active", "is_verified", "is_super_admin", "avatar_url"),
            *("attributes", "waitlist_status", "created_at", "last_login_at"),
        }

    async def test_an_address_in_other_case_is_the_same_account(self, identity: Identity) -> None:
        ada = await identity.person("ada@example.com")
        body = {"email": "ADA@example.com", "password": "An-0ther-password!", "full_name": "Eve"}
        answer = await identity.http.post(REGISTER, json=body)
        assert answer.status_code == 201
        assert answer.json()["id"] != ada.id
        assert answer.json()["full_name"] == "Eve"
        assert (await identity.http.get(ME, headers=ada.headers)).json()["full_name"] is None
        await identity.login("ada@example.com")
        refused = await identity.http.post(LOGIN, json={"email": "ada@example.com", "password": body["password"]})
        assert_problem(refused, 401, "identity.bad_credentials")

    async def test_a_taken_address_answers_like_a_new_one(self, identity: Identity) -> None:
        body = {"email": "ada@example.com", "password": PASSWORD, "full_name": "Ada", "department": "x"}
        new = await identity.http.post(REGISTER, json=body)
        taken = await identity.http.post(REGISTER, json=body)
        assert new.status_code == taken.status_code == 201
        differing = {name for name, value in new.json().items() if taken.json()[name] != value}
        assert differing <= {"id", "created_at"}
        assert set(new.json()) == set(taken.json())
        assert set(new.headers) == set(taken.headers)

    async def test_twenty_at_once_make_one_account(self, identity: Identity) -> None:
        body = {"email": "ada@example.com", "password": PASSWORD}
        answers = await asyncio.gather(*(identity.http.post(REGISTER, json=body) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {201}
        async with identity.running.service.db.reader() as tx:
            count = (await tx.session.execute(text("SELECT count(*) FROM users"))).scalar_one()
        assert count == 1

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"email": "no address"}, "email"),
            ({"password": "short"}, "password"),
            ({"password": "nouppercase1!"}, "password"),
            ({"password": "Nodigits!!"}, "password"),
            ({"full_name": "x" * 256}, "full_name"),
            ({"full_name": "nul\x00"}, "full_name"),
            ({"email": "x" * 300 + "@example.com"}, "email"),
        ],
    )
    async def test_bad_input_names_the_field(self, identity: Identity, change: dict[str, str], field: str) -> None:
        answer = await identity.http.post(
            REGISTER, json={"email": "ada@example.com", "password": PASSWORD, "full_name": "Ada"} | change
        )
        assert answer.status_code == 422
        assert any(field in problem["loc"] for problem in answer.json()["detail"])
        assert PASSWORD not in answer.text

    async def test_privileged_fields_are_ignored(self, identity: Identity) -> None:
        body = {"email": "ada@example.com", "password": PASSWORD, "is_super_admin": True, "is_verified": True}
        answer = await identity.http.post(REGISTER, json=body)
        assert answer.json()["is_super_admin"] is False
        assert answer.json()["is_verified"] is False


class TestLogin:
    async def test_tokens_and_cookies(self, identity: Identity) -> None:
        await identity.person("ada@example.com")
        answer = await identity.http.post(LOGIN, json={"email": "Ada@example.com", "password": PASSWORD})
        body = answer.json()
        assert body["token_type"] == "bearer"
        assert body["expires_in"] == 900
        cookies = "\n".join(answer.headers.get_list("set-cookie"))
        for name in ("omoios_access_token", "omoios_refresh_token", "omoios_auth_state"):
            assert name in cookies
        assert cookies.count("HttpOnly") == 2
        assert cookies.count("SameSite=lax") == 3
        claims = claims_of(body["access_token"])
        assert claims["pt"] == "user"
        assert claims["exp"] - claims["iat"] == 900

    async def test_wrong_password_and_unknown_address_are_told_alike(self, identity: Identity) -> None:
        await identity.person("ada@example.com")
        wrong = await identity.http.post(LOGIN, json={"email": "ada@example.com", "password": "x"})
        unknown = await identity.http.post(LOGIN, json={"email": "bob@example.com", "password": "x"})
        for answer in (wrong, unknown):
            assert_problem(answer, 401, "identity.bad_credentials")
            assert answer.headers["www-authenticate"] == "Bearer"
        assert wrong.json()["detail"] == unknown.json()["detail"]

    async def test_five_failures_lock_the_pair_of_addresses_for_a_while(self, identity: Identity) -> None:
        await identity.person("ada@example.com")
        for _ in range(5):
            await identity.http.post(LOGIN, json={"email": "ada@example.com", "password": "x"})
        answer = await identity.http.post(LOGIN, json={"email": "ada@example.com", "password": PASSWORD})
        assert_problem(answer, 429, "identity.locked_out")
        assert int(answer.headers["retry-after"]) > 0

    async def test_contract_limits_are_five_a_minute(self, start: Start) -> None:
        identity = await start(rate_limits="contract")
        statuses = [
            (await identity.http.post(LOGIN, json={"email": f"p{n}@example.com", "password": "x"})).status_code
            for n in range(6)
        ]
        assert statuses == [401] * 5 + [429]


class TestSession:
    async def test_the_own_account_is_read_and_changed(self, identity: Identity) -> None:
        ada = await identity.person()
        answer = await identity.http.patch(
            ME, json={"full_name": "Ada L.", "attributes": {"theme": "dark", "bio": "x"}}, headers=ada.headers
        )
        assert answer.json()["full_name"] == "Ada L."
        answer = await identity.http.patch(ME, json={"attributes": {"bio": None, "lang": "en"}}, headers=ada.headers)
        assert answer.json()["attributes"] == {"theme": "dark", "lang": "en"}
        assert (await identity.http.get(ME, headers=ada.headers)).json() == answer.json()

    async def test_provider_attributes_and_huge_ones_are_refused(self, identity: Identity) -> None:
        ada = await identity.person()
        for attributes in ({"github_access_token": "x"}, {"bio": "x" * 20_000}):
            answer = await identity.http.patch(ME, json={"attributes": attributes}, headers=ada.headers)
            assert answer.status_code == 422

    async def test_nobody_without_a_token(self, identity: Identity) -> None:
        for method, path in (
            ("GET", ME),
            ("PATCH", ME),
            ("POST", "/api/v1/auth/logout"),
            ("GET", "/api/v1/auth/api-keys"),
        ):
            assert_problem(await identity.http.request(method, path, json={}), 401, "auth.unauthenticated")

    async def test_refresh_rotates_and_a_replay_ends_the_session(self, identity: Identity) -> None:
        ada = await identity.person()
        first = (await identity.http.post(REFRESH, json={"refresh_token": ada.refresh_token})).json()
        second = (await identity.http.post(REFRESH, json={"refresh_token": first["refresh_token"]})).json()
        assert len({ada.refresh_token, first["refresh_token"], second["refresh_token"]}) == 3
        replay = await identity.http.post(REFRESH, json={"refresh_token": ada.refresh_token})
        assert_problem(replay, 401, "identity.bad_refresh_token")
        dead = await identity.http.post(REFRESH, json={"refresh_token": second["refresh_token"]})
        assert_problem(dead, 401, "identity.bad_refresh_token")
        await eventually_refused(identity, second["access_token"])

    async def test_fifty_concurrent_refreshes_leave_one_successor(self, identity: Identity) -> None:
        ada = await identity.person()
        answers = await asyncio.gather(
            *(identity.http.post(REFRESH, json={"refresh_token": ada.refresh_token}) for _ in range(50))
        )
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["refresh_token"] for answer in answers}) == 1

    async def test_the_cookie_alone_refreshes(self, identity: Identity) -> None:
        ada = await identity.person()
        cookie = {"Cookie": f"omoios_refresh_token={ada.refresh_token}"}
        for elsewhere in ({}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            refused = await identity.http.post(REFRESH, json={}, headers=cookie | elsewhere)
            assert_problem(refused, 403, "auth.cross_origin")
        for ours in ({"Origin": "http://localhost:3000"}, {"Sec-Fetch-Site": "same-site"}):
            answer = await identity.http.post(REFRESH, json={}, headers=cookie | ours)
            assert answer.status_code == 200
            identity.http.cookies.clear()
        identity.http.cookies.clear()
        assert_problem(await identity.http.post(REFRESH), 401, "identity.bad_refresh_token")

    @pytest.mark.parametrize("token", ["", "x", "omr_a.1.x", "omr_a.1.x.y", "omr_" + "a" * 300, "omr_ü.1.ß"])
    async def test_garbage_does_not_refresh(self, identity: Identity, token: str) -> None:
        answer = await identity.http.post(REFRESH, json={"refresh_token": token})
        assert_problem(answer, 401, "identity.bad_refresh_token")

    async def test_a_refresh_token_is_no_access_token(self, identity: Identity) -> None:
        ada = await identity.person()
        answer = await identity.http.get(ME, headers={"Authorization": f"Bearer {ada.refresh_token}"})
        assert_problem(answer, 401, "auth.unauthenticated")

    async def test_logout_ends_both_tokens(self, identity: Identity) -> None:
        ada = await identity.person()
        answer = await identity.http.post("/api/v1/auth/logout", headers=ada.headers)
        assert answer.status_code == 200
        await eventually_refused(identity, ada.access_token)
        refused = await identity.http.post(REFRESH, json={"refresh_token": ada.refresh_token})
        assert_problem(refused, 401, "identity.bad_refresh_token")

    async def test_another_password_ends_the_other_sessions_only(self, identity: Identity) -> None:
        here = await identity.person("ada@example.com")
        there = await identity.login("ada@example.com")
        change = {"current_password": PASSWORD, "new_password": "Entirely-0ther!"}
        wrong = change | {"current_password": "x"}
        path = "/api/v1/auth/change-password"
        assert_problem(await identity.http.post(path, json=wrong, headers=here.headers), 400, "identity.wrong_password")
        assert (await identity.http.post(path, json=change, headers=here.headers)).status_code == 200
        await eventually_refused(identity, there.access_token)
        assert (await identity.http.get(ME, headers=here.headers)).status_code == 200
        await identity.login("ada@example.com", password="Entirely-0ther!")


class TestApiKeys:
    async def test_the_number_of_keys_is_bounded(self, identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("identity_service.auth.api_key_service.MAX_API_KEYS", 2)
        ada = await identity.person()
        made = [
            await identity.http.post("/api/v1/auth/api-keys", json={"name": "ci"}, headers=ada.headers)
            for _ in range(3)
        ]
        assert [answer.status_code for answer in made] == [201, 201, 409]
        assert_problem(made[2], 409, "identity.too_many_api_keys")
        # A key that was ended makes room.
        await identity.http.delete(f"/api/v1/auth/api-keys/{made[0].json()['id']}", headers=ada.headers)
        answer = await identity.http.post("/api/v1/auth/api-keys", json={"name": "ci"}, headers=ada.headers)
        assert answer.status_code == 201

    async def test_a_key_acts_for_its_user_until_it_ends(self, identity: Identity) -> None:
        ada = await identity.person()
        organization = await identity.organization(ada)
        answer = await identity.http.post(
            "/api/v1/auth/api-keys", json={"name": "ci", "scopes": ["org:read"]}, headers=ada.headers
        )
        assert answer.status_code == 201
        key = answer.json()
        assert key["key"].startswith(key["key_prefix"])
        headers = {"Authorization": f"Bearer {key['key']}"}
        path = f"/api/v1/organizations/{organization}"
        assert (await identity.http.get(path, headers=headers)).status_code == 200
        refused = await identity.http.patch(path, json={"name": "x"}, headers=headers)
        assert_problem(refused, 403, "auth.forbidden")
        listed = (await identity.http.get("/api/v1/auth/api-keys", headers=ada.headers)).json()
        assert [item["id"] for item in listed] == [key["id"]]
        assert "key" not in listed[0]
        ended = await identity.http.delete(f"/api/v1/auth/api-keys/{key['id']}", headers=ada.headers)
        assert ended.status_code == 200
        await eventually_refused(identity, key["key"], path)

    async def test_keys_of_others_and_malformed_ids(self, identity: Identity) -> None:
        ada, bob = await identity.person(), await identity.person()
        key = (await identity.http.post("/api/v1/auth/api-keys", json={"name": "x"}, headers=ada.headers)).json()
        path = f"/api/v1/auth/api-keys/{key['id']}"
        assert_problem(await identity.http.delete(path, headers=bob.headers), 404, "identity.api_key_not_found")
        assert (await identity.http.delete("/api/v1/auth/api-keys/x", headers=ada.headers)).status_code == 422

    async def test_a_key_cannot_make_keys(self, identity: Identity) -> None:
        ada = await identity.person()
        key = (await identity.http.post("/api/v1/auth/api-keys", json={"name": "x"}, headers=ada.headers)).json()
        answer = await identity.http.post(
            "/api/v1/auth/api-keys", json={"name": "y"}, headers={"Authorization": f"Bearer {key['key']}"}
        )
        assert_problem(answer, 403, "auth.forbidden")


async def eventually_refused(identity: Identity, token: str, path: str = ME) -> None:
    """The token is dead within the second that the poll takes; four times that is the ceiling."""
    for _ in range(80):
        answer = await identity.http.get(path, headers={"Authorization": f"Bearer {token}"})
        if answer.status_code == 401:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the token was still accepted after 4 s")
