"""`/users`: profile, pictures, colleagues, administration, export, and the end of an account."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest

from servicekit.testing.problems import assert_problem

from .conftest import PASSWORD, Identity, Person

BASE = "/api/v1/users"
PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"


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


async def run_job(identity: Identity, name: str) -> object:
    [job] = [job for job in identity.running.service.jobs if job.name == name]
    return await job.run()


class TestProfile:
    async def test_read_changed_and_cleared(self, identity: Identity) -> None:
        ada = await identity.person()
        body = {
            "full_name": "Ada",
            "department": "Engines",
            "avatar_url": "https://example.com/ada.png",
            "attributes": {"bio": "b", "company": "c"},
        }
        changed = (await identity.http.patch(f"{BASE}/me", json=body, headers=ada.headers)).json()
        assert {key: changed[key] for key in body} == body
        cleared = {"department": None, "avatar_url": None, "attributes": {"bio": None, "location": "l"}}
        changed = (await identity.http.patch(f"{BASE}/me", json=cleared, headers=ada.headers)).json()
        assert (changed["full_name"], changed["department"], changed["avatar_url"]) == ("Ada", None, None)
        assert changed["attributes"] == {"company": "c", "location": "l"}
        assert (await identity.http.get(f"{BASE}/me", headers=ada.headers)).json() == changed
        assert (await identity.http.get("/api/v1/auth/me", headers=ada.headers)).json() == changed

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"full_name": "x" * 256}, "full_name"),
            ({"department": "x" * 101}, "department"),
            ({"avatar_url": "http://example.com/a.png"}, "avatar_url"),
            ({"avatar_url": "javascript:alert(1)"}, "avatar_url"),
            ({"attributes": {"github_access_token": "t"}}, "github_access_token"),
            ({"attributes": {"bio": "x" * 20_000}}, "attributes"),
        ],
    )
    async def test_bad_input_names_the_field(self, identity: Identity, body: Any, field: str) -> None:
        ada = await identity.person()
        answer = await identity.http.patch(f"{BASE}/me", json=body, headers=ada.headers)
        assert answer.status_code == 422
        assert any(field in problem["loc"] for problem in answer.json()["detail"])

    async def test_preferences_are_the_attributes_that_clients_write(self, identity: Identity) -> None:
        ada = await identity.person()
        path = f"{BASE}/me/preferences"
        assert (await identity.http.get(path, headers=ada.headers)).json() == {
            "timezone": None,
            "language": None,
            "theme": None,
        }
        old = {"attributes": {"timezone": "America/Los_Angeles", "theme": "purple"}}
        await identity.http.patch("/api/v1/auth/me", json=old, headers=ada.headers)
        set_ = await identity.http.patch(path, json={"language": "de-CH"}, headers=ada.headers)
        assert set_.json() == {"timezone": "America/Los_Angeles", "language": "de-CH", "theme": None}
        me = (await identity.http.get(f"{BASE}/me", headers=ada.headers)).json()
        assert me["attributes"]["language"] == "de-CH"
        for body, field in (({"timezone": "Moon/Base"}, "timezone"), ({"theme": "x"}, "theme")):
            bad = await identity.http.patch(path, json=body, headers=ada.headers)
            assert bad.status_code == 422
            assert bad.json()["detail"][0]["loc"][-1] == field

    async def test_a_picture_has_an_address_of_its_own(self, identity: Identity) -> None:
        ada = await identity.person()
        path = f"{BASE}/me/avatar"
        kept = await identity.http.put(path, content=PNG, headers=ada.headers)
        assert kept.status_code == 200, kept.text
        url = kept.json()["avatar_url"]
        local = url[url.index("/api/") :]
        shown = await identity.http.get(local)
        assert (shown.content, shown.headers["content-type"]) == (PNG, "image/png")
        assert "immutable" in shown.headers["cache-control"]
        await identity.http.put(path, content=PNG + b"2", headers=ada.headers)
        assert_problem(await identity.http.get(local), 404, "identity.avatar_not_found")
        removed = await identity.http.delete(path, headers=ada.headers)
        assert removed.json()["avatar_url"] is None
        svg = await identity.http.put(path, content=b"<svg onload='alert(1)'/>", headers=ada.headers)
        assert svg.status_code == 422
        large = await identity.http.put(path, content=PNG + b"x" * 600_000, headers=ada.headers)
        assert large.status_code == 413


class TestReading:
    async def test_colleagues_in_short_strangers_not_at_all(self, identity: Identity) -> None:
        ada = await identity.person()
        organization = await identity.organization(ada)
        bob, _ = await identity.member(ada, organization, "viewer")
        eve, root = await identity.person(), await identity.super_admin()
        path = f"{BASE}/{ada.id}"
        short = (await identity.http.get(path, headers=bob.headers)).json()
        assert set(short) == {"id", "full_name", "avatar_url", "department"}
        assert_problem(await identity.http.get(path, headers=eve.headers), 404, "identity.user_not_found")
        for person in (ada, root):
            assert (await identity.http.get(path, headers=person.headers)).json()["email"] == ada.email
        unknown = await identity.http.get(f"{BASE}/{uuid.uuid4()}", headers=ada.headers)
        assert_problem(unknown, 404, "identity.user_not_found")
        assert (await identity.http.get(f"{BASE}/nobody", headers=ada.headers)).status_code == 422

    async def test_own_organizations_permissions_and_limits(self, identity: Identity) -> None:
        ada, eve = await identity.person(), await identity.person()
        organization = await identity.organization(ada)
        viewer, _ = await identity.member(ada, organization, "viewer")
        own = (await identity.http.get(f"{BASE}/me/organizations", headers=viewer.headers)).json()
        assert [(item["id"], item["role"]) for item in own["organizations"]] == [(organization, "viewer")]
        params = {"organization_id": organization}
        shown = (await identity.http.get(f"{BASE}/me/permissions", params=params, headers=viewer.headers)).json()
        assert shown["role"] == "viewer"
        assert "org:read" in shown["permissions"]
        limits = (await identity.http.get(f"{BASE}/me/limits", params=params, headers=viewer.headers)).json()
        assert limits == {
            "organization_id": organization,
            "plan": "free",
            "max_concurrent_agents": 5,
            "max_agent_runtime_hours": 100.0,
            "max_task_duration_minutes": 1440,
            "monthly_agent_hours_limit": 100.0,
            "monthly_agent_hours_used": 0.0,
            "billing_cycle_resets_at": None,
        }
        for path in ("permissions", "limits"):
            foreign = await identity.http.get(f"{BASE}/me/{path}", params=params, headers=eve.headers)
            assert_problem(foreign, 404, "identity.organization_not_found")
            assert (await identity.http.get(f"{BASE}/me/{path}", headers=ada.headers)).status_code == 422
        made = await identity.http.post(
            "/api/v1/auth/api-keys", json={"name": "k", "scopes": ["org:read", "task:*"]}, headers=ada.headers
        )
        key = {"Authorization": f"Bearer {made.json()['key']}"}
        shown = (await identity.http.get(f"{BASE}/me/permissions", params=params, headers=key)).json()
        assert shown["permissions"] == ["org:read", "task:*"]


class TestAdministration:
    async def test_listed_searched_filtered_by_pages(self, identity: Identity) -> None:
        ada = await identity.person("ada.l@example.com")
        await identity.person("adam@example.com")
        await identity.person("zoe_100%@example.com")
        root = await identity.super_admin()
        await identity.http.patch(f"{BASE}/me", json={"full_name": "Ada Lovelace"}, headers=ada.headers)

        async def found(**params: Any) -> list[str]:
            answer = await identity.http.get(BASE, params=params, headers=root.headers)
            assert answer.status_code == 200, answer.text
            return [item["email"] for item in answer.json()["items"]]

        assert await found(search="ADA") == ["adam@example.com", "ada.l@example.com"]
        assert await found(search="ada love") == ["ada.l@example.com"]
        assert await found(search="zoe_100%") == ["zoe_100%@example.com"]
        assert await found(search="zoe%") == []
        assert await found(is_super_admin=True) == [root.email]
        assert await found(is_active=False) == []
        seen, token = [], None
        for _ in range(2):
            params = {"page_size": 2} | ({"page_token": token} if token else {})
            page = (await identity.http.get(BASE, params=params, headers=root.headers)).json()
            seen += [item["email"] for item in page["items"]]
            token = page["next_page_token"]
        assert (seen, token) == ([root.email, "zoe_100%@example.com", "adam@example.com", "ada.l@example.com"], None)
        assert_problem(await identity.http.get(BASE, headers=ada.headers), 403, "auth.forbidden")

    async def test_a_suspended_account_is_out_everywhere_until_it_is_let_in(self, identity: Identity) -> None:
        ada, root = await identity.person(), await identity.super_admin()
        made = await identity.http.post("/api/v1/auth/api-keys", json={"name": "k"}, headers=ada.headers)
        key = Person(ada.id, ada.email, made.json()["key"], "")
        assert (await identity.http.get(f"{BASE}/me", headers=key.headers)).status_code == 200
        path = f"{BASE}/{ada.id}"
        out = await identity.http.patch(path, json={"is_active": False}, headers=root.headers)
        assert out.json()["is_active"] is False
        await eventually(identity, ada, 401)
        await eventually(identity, key, 401)
        login = {"email": ada.email, "password": PASSWORD}
        assert (await identity.http.post("/api/v1/auth/login", json=login)).status_code == 401
        refresh = await identity.http.post("/api/v1/auth/refresh", json={"refresh_token": ada.refresh_token})
        assert refresh.status_code == 401
        assert (await identity.http.patch(path, json={"is_active": True}, headers=root.headers)).status_code == 200
        again = await identity.login(ada.email, ada.id)
        assert (await identity.http.get(f"{BASE}/me", headers=again.headers)).status_code == 200
        trail = (await identity.http.get(f"{BASE}/{ada.id}/audit", headers=root.headers)).json()["items"]
        actions = [item["action"] for item in trail]
        assert "user.suspended" in actions
        assert "user.reactivated" in actions

    async def test_super_admins_are_made_and_unmade_by_others_only(self, identity: Identity) -> None:
        ada, root = await identity.person(), await identity.super_admin()
        path = f"{BASE}/{ada.id}"
        assert_problem(
            await identity.http.patch(path, json={"is_super_admin": True}, headers=ada.headers), 403, "auth.forbidden"
        )
        for body in ({"is_super_admin": False}, {"is_active": False}):
            own = await identity.http.patch(f"{BASE}/{root.id}", json=body, headers=root.headers)
            assert_problem(own, 409, "identity.not_on_yourself")
        await identity.http.patch(path, json={"is_super_admin": True}, headers=root.headers)
        await eventually(identity, ada, 401)
        second = await identity.login(ada.email, ada.id)
        assert (await identity.http.get(BASE, headers=second.headers)).status_code == 200
        answers = await asyncio.gather(
            identity.http.patch(path, json={"is_super_admin": False}, headers=root.headers),
            identity.http.patch(f"{BASE}/{root.id}", json={"is_super_admin": False}, headers=second.headers),
        )
        assert sorted(answer.status_code for answer in answers) == [200, 403]
        left = await execute(identity, "SELECT id FROM users WHERE is_super_admin")
        assert len(left) == 1
        missing = await identity.http.patch(f"{BASE}/{uuid.uuid4()}", json={"is_verified": True}, headers=root.headers)
        assert missing.status_code in (401, 403, 404)


class TestExport:
    async def test_all_that_is_kept_of_a_user(self, identity: Identity) -> None:
        ada = await identity.person()
        organization = await identity.organization(ada)
        await identity.http.post("/api/v1/auth/api-keys", json={"name": "my key"}, headers=ada.headers)
        await identity.http.post("/api/v1/onboarding/step", json={"step": "repo"}, headers=ada.headers)
        answer = await identity.http.get(f"{BASE}/me/export", headers=ada.headers)
        assert "attachment" in answer.headers["content-disposition"]
        document = json.loads(answer.content)
        assert document["profile"]["email"] == ada.email
        assert document["organizations"][0]["id"] == organization
        assert document["api_keys"][0]["name"] == "my key"
        assert document["onboarding"]["current_step"] == "repo"
        assert document["credentials"] == []
        actions = [entry["action"] for entry in document["audit"]]
        assert actions[0] == "user.exported"
        assert actions[-1] == "user.registered"
        assert "digest" in document["audit"][0]

    async def test_a_long_trail_is_whole(self, identity: Identity) -> None:
        ada = await identity.person()
        await execute(
            identity,
            "INSERT INTO audit_log (id, action, actor_type, subject_id, details)"
            " SELECT 'x' || lpad(n::text, 4, '0'), 'thing.done', 'user', $1, '{}' FROM generate_series(1, 250) n",
            ada.id,
        )
        document = json.loads((await identity.http.get(f"{BASE}/me/export", headers=ada.headers)).content)
        assert sum(entry["action"] == "thing.done" for entry in document["audit"]) == 250

    async def test_every_table_about_users_has_an_answer(self, identity: Identity) -> None:
        """A new table with a user's id must be exported and erased, or say here why it is not."""
        rows = await execute(
            identity,
            "SELECT table_name FROM information_schema.columns WHERE column_name = 'user_id'"
            " AND table_schema = 'public'",
        )
        exported = {"api_keys", "oauth_identities", "organization_memberships", "user_credentials", "user_onboarding"}
        others = {
            "account_deletions": "shown at /users/me/deletion",
            "membership_versions": "numbers only",
            "oauth_states": "lives for ten minutes",
            "sessions": "listed at /auth/sessions; devices and addresses stand in the trail",
            "user_avatars": "the profile names its address",
            "account_tokens": "digests of links that live for a day",
        }
        unknown = {row["table_name"] for row in rows} - exported - set(others)
        assert unknown == set()


class TestRotation:
    async def test_the_old_key_lives_on_for_the_grace(self, identity: Identity) -> None:
        ada = await identity.person()
        keys = "/api/v1/auth/api-keys"
        body = {"name": "ci", "scopes": ["org:read"], "expires_in_days": 30}
        old = (await identity.http.post(keys, json=body, headers=ada.headers)).json()
        answer = await identity.http.post(f"{keys}/{old['id']}/rotate", json={"grace_hours": 1}, headers=ada.headers)
        assert answer.status_code == 201, answer.text
        new = answer.json()
        assert (new["name"], new["scopes"]) == ("ci", ["org:read"])
        for secret in (old["key"], new["key"]):
            # Both in the header of their own, which every service takes.
            assert (await identity.http.get(f"{BASE}/me", headers={"X-API-Key": secret})).status_code == 200
        await execute(identity, "UPDATE api_keys SET expires_at = now() WHERE id = $1", old["id"])
        gone = await identity.http.post(f"{keys}/{old['id']}/rotate", headers=ada.headers)
        assert_problem(gone, 404, "identity.api_key_not_found")
        last = await identity.http.post(f"{keys}/{new['id']}/rotate", json={"grace_hours": 0}, headers=ada.headers)
        await eventually(identity, Person(ada.id, "", new["key"], ""), 401)
        assert (await identity.http.get(f"{BASE}/me", headers={"X-API-Key": last.json()["key"]})).status_code == 200
        too_long = await identity.http.post(
            f"{keys}/{last.json()['id']}/rotate", json={"grace_hours": 200}, headers=ada.headers
        )
        assert too_long.status_code == 422
