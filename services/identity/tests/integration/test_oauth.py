"""Signing in with providers and connecting their accounts, against providers on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from identity_service.settings import OAuthProvider, Settings
from servicekit.testing.problems import assert_problem

from .conftest import PASSWORD, Identity, Person, Start
from .providers import CLIENT_ID, CLIENT_SECRET, LoopbackProvider, Someone, served

PUBLIC_URL = "http://omoios.test"
FRONT = "http://front.test/callback"
KINDS = ("github", "gitlab", "acme")


@pytest.fixture
async def provider() -> AsyncIterator[LoopbackProvider]:
    made = LoopbackProvider()
    async with served(made.app()) as url:
        made.url = url
        yield made


@pytest.fixture
async def identity(start: Start, provider: LoopbackProvider) -> Identity:
    return await start(
        public_url=PUBLIC_URL,
        oauth_redirect_uri=FRONT,
        oauth_providers={
            "github": registered_client(base_url=provider.url),
            "gitlab": registered_client(base_url=provider.url),
            "acme": registered_client(issuer=provider.url),
        },
    )


def registered_client(**address: str) -> OAuthProvider:
    return OAuthProvider.model_validate({"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, **address})


class Browser:
    """A browser: it keeps cookies and goes where it is sent."""

    def __init__(self, identity: Identity, provider: LoopbackProvider, name: str) -> None:
        self.identity = identity
        self.provider = provider
        self.name = name
        self.path = f"/api/v1/auth/oauth/{name}"
        self.cookies: dict[str, str] = {}
        provider.redirect_uri = f"{PUBLIC_URL}/api/v1/auth/oauth/{name}/callback"

    async def begin(self) -> str:
        """The provider's address after `GET /oauth/{provider}`."""
        answer = await self.identity.http.get(self.path, headers=self.headers(), follow_redirects=False)
        assert answer.status_code == 307, answer.text
        self.keep(answer)
        return str(answer.headers["location"])

    async def begin_connect(self, person: Person) -> str:
        answer = await self.identity.http.post(f"{self.path}/connect", headers=self.headers(person))
        assert answer.status_code == 200, answer.text
        self.keep(answer)
        return str(answer.json()["auth_url"])

    async def back(self, carried: dict[str, str]) -> Any:
        answer = await self.identity.http.get(
            f"{self.path}/callback", params=carried, headers=self.headers(), follow_redirects=False
        )
        assert answer.status_code == 307, answer.text
        assert answer.headers["location"].startswith(FRONT)
        self.identity.http.cookies.clear()
        return answer

    async def sign_in(self) -> Any:
        return await self.back(self.provider.approve(await self.begin()))

    async def sign_in_as(self, user: Someone) -> Any:
        self.provider.user = user
        return await self.sign_in()

    async def connect(self, person: Person) -> Any:
        return await self.back(self.provider.approve(await self.begin_connect(person)))

    def keep(self, answer: Any) -> None:
        self.cookies |= dict(answer.cookies)
        self.identity.http.cookies.clear()

    def headers(self, person: Person | None = None) -> dict[str, str]:
        cookie = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        return (cookie if self.cookies else {}) | (person.headers if person is not None else {})


def told(answer: Any) -> dict[str, str]:
    """Query and fragment of where the browser landed."""
    parts = urlsplit(answer.headers["location"])
    return {name: values[0] for name, values in (parse_qs(parts.query) | parse_qs(parts.fragment)).items()}


async def me(identity: Identity, access_token: str) -> dict[str, Any]:
    answer = await identity.http.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {access_token}"})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def connected(identity: Identity, person: Person) -> list[dict[str, Any]]:
    answer = await identity.http.get("/api/v1/auth/oauth/connected", headers=person.headers)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["providers"]
    return found


async def execute(identity: Identity, statement: str, *arguments: object) -> Any:
    connection = await asyncpg.connect(identity.running.service.settings.database_url)
    try:
        return await connection.fetch(statement, *arguments)
    finally:
        await connection.close()


@pytest.mark.parametrize("name", KINDS)
class TestSignIn:
    async def test_a_first_sign_in_makes_a_verified_account(
        self, identity: Identity, provider: LoopbackProvider, name: str
    ) -> None:
        provider.user = Someone(7, "Ada@Example.com", username="ada", name="Ada L.")
        answer = await Browser(identity, provider, name).sign_in()
        landed = told(answer)
        assert set(landed) == {"access_token", "refresh_token", "provider"}
        assert landed["provider"] == name
        assert set(answer.cookies) == {"omoios_access_token", "omoios_refresh_token", "omoios_auth_state"}
        account = await me(identity, landed["access_token"])
        assert (account["email"], account["full_name"], account["is_verified"]) == ("ada@example.com", "Ada L.", True)
        assert account["last_login_at"] is not None
        refreshed = await identity.http.post("/api/v1/auth/refresh", json={"refresh_token": landed["refresh_token"]})
        assert refreshed.status_code == 200

    async def test_the_provider_s_id_decides_before_the_address(
        self, identity: Identity, provider: LoopbackProvider, name: str
    ) -> None:
        provider.user = Someone(7, "ada@example.com")
        first = told(await Browser(identity, provider, name).sign_in())
        provider.user = Someone(7, "moved@example.com")
        second = told(await Browser(identity, provider, name).sign_in())
        accounts = [await me(identity, landed["access_token"]) for landed in (first, second)]
        assert accounts[0]["id"] == accounts[1]["id"]
        assert accounts[1]["email"] == "ada@example.com"

    async def test_an_address_that_nobody_vouches_for_opens_nothing(
        self, identity: Identity, provider: LoopbackProvider, name: str
    ) -> None:
        await identity.person("ada@example.com")
        for email, verified in (("ada@example.com", False), (None, True)):
            provider.user = Someone(8, email, verified=verified)
            assert told(await Browser(identity, provider, name).sign_in()) == {"error": "email_not_verified"}


class TestAccounts:
    async def test_a_verified_account_of_the_address_is_linked_and_keeps_its_password(
        self, identity: Identity, provider: LoopbackProvider
    ) -> None:
        ada = await identity.person("ada@example.com")
        await execute(identity, "UPDATE users SET is_verified = true")
        landed = told(await Browser(identity, provider, "acme").sign_in_as(Someone(7, "ada@example.com")))
        assert (await me(identity, landed["access_token"]))["id"] == ada.id
        await identity.login("ada@example.com")
        assert [entry["provider"] for entry in await connected(identity, ada)] == ["acme"]

    async def test_whoever_registered_the_address_without_proof_loses_every_way_in(
        self, identity: Identity, provider: LoopbackProvider
    ) -> None:
        squatter = await identity.person("ada@example.com")
        key = (await identity.http.post("/api/v1/auth/api-keys", json={"name": "x"}, headers=squatter.headers)).json()[
            "key"
        ]
        provider.user = Someone(666, None, username="squatter")
        await Browser(identity, provider, "github").connect(squatter)
        landed = told(await Browser(identity, provider, "acme").sign_in_as(Someone(7, "ada@example.com")))
        account = await me(identity, landed["access_token"])
        assert (account["id"], account["is_verified"]) == (squatter.id, True)
        answer = await identity.http.post("/api/v1/auth/login", json={"email": "ada@example.com", "password": PASSWORD})
        assert_problem(answer, 401, "identity.bad_credentials")
        for credential in (squatter.access_token, key):
            await eventually_refused(identity, credential)
        provider.user = Someone(666, None, username="squatter")
        assert told(await Browser(identity, provider, "github").sign_in()) == {"error": "email_not_verified"}

    async def test_an_account_signs_in_with_one_account_of_a_provider(
        self, identity: Identity, provider: LoopbackProvider
    ) -> None:
        browser = Browser(identity, provider, "acme")
        await browser.sign_in_as(Someone(7, "ada@example.com"))
        assert told(await browser.sign_in_as(Someone(8, "ada@example.com"))) == {"error": "other_account_connected"}

    async def test_an_inactive_account_stays_closed(self, identity: Identity, provider: LoopbackProvider) -> None:
        browser = Browser(identity, provider, "acme")
        await browser.sign_in_as(Someone(7, "ada@example.com"))
        await execute(identity, "UPDATE users SET is_active = false")
        assert told(await browser.sign_in_as(Someone(7, "ada@example.com"))) == {"error": "account_disabled"}

    async def test_twenty_first_sign_ins_at_once_make_one_account(
        self, identity: Identity, provider: LoopbackProvider
    ) -> None:
        browsers = [Browser(identity, provider, "acme") for _ in range(20)]
        carried = [provider.approve(await browser.begin()) for browser in browsers]
        answers = await asyncio.gather(*(browser.back(back) for browser, back in zip(browsers, carried, strict=True)))
        accounts = {(await me(identity, told(answer)["access_token"]))["id"] for answer in answers}
        assert len(accounts) == 1

    async def test_tokens_are_sealed_and_the_trail_says_who_came_how(
        self, identity: Identity, provider: LoopbackProvider
    ) -> None:
        provider.expires_in = 3600
        await Browser(identity, provider, "acme").sign_in()
        (row,) = await execute(identity, "SELECT * FROM oauth_identities")
        assert b"access-" not in row["sealed_access_token"]
        assert b"refresh-" not in row["sealed_refresh_token"]
        assert list(row["scopes"]) == ["read:user", "repo"]
        trail = await execute(identity, "SELECT details::text FROM audit_log WHERE action = 'login_success'")
        assert '"how": "create"' in trail[0]["details"]
        assert not any("access-" in entry["details"] for entry in trail)


class TestState:
    async def test_a_state_works_once_in_its_browser_for_its_provider(
        self, identity: Identity, provider: LoopbackProvider
    ) -> None:
        browser = Browser(identity, provider, "acme")
        carried = provider.approve(await browser.begin())
        assert "access_token" in told(await browser.back(carried))
        carried |= {"code": provider.approve(await browser.begin())["code"]}
        assert told(await browser.back(carried)) == {"error": "invalid_state"}

    async def test_another_browser_cannot_finish_what_this_one_began(
        self, identity: Identity, provider: LoopbackProvider
    ) -> None:
        mine, other = Browser(identity, provider, "acme"), Browser(identity, provider, "acme")
        carried = provider.approve(await mine.begin())
        await other.begin()
        assert told(await other.back(carried)) == {"error": "invalid_state"}
        assert told(await mine.back(carried)) == {"error": "invalid_state"}

    async def test_another_provider_cannot_use_it(self, identity: Identity, provider: LoopbackProvider) -> None:
        github = Browser(identity, provider, "github")
        carried = provider.approve(await github.begin())
        gitlab = Browser(identity, provider, "gitlab")
        gitlab.cookies = github.cookies
        assert told(await gitlab.back(carried)) == {"error": "invalid_state"}

    async def test_it_expires(self, identity: Identity, provider: LoopbackProvider) -> None:
        browser = Browser(identity, provider, "acme")
        carried = provider.approve(await browser.begin())
        await execute(identity, "UPDATE oauth_states SET expires_at = now() - interval '1 second'")
        assert told(await browser.back(carried)) == {"error": "invalid_state"}

    async def test_two_tabs_of_one_browser_do_not_disturb_each_other(
        self, identity: Identity, provider: LoopbackProvider
    ) -> None:
        browser = Browser(identity, provider, "acme")
        first = provider.approve(await browser.begin())
        second = provider.approve(await browser.begin())
        assert "access_token" in told(await browser.back(first))
        assert "access_token" in told(await browser.back(second))

    async def test_every_answer_lands_at_the_client(self, identity: Identity, provider: LoopbackProvider) -> None:
        for carried, error in (
            ({}, "invalid_state"),
            ({"code": "x"}, "invalid_state"),
            ({"code": "x", "state": "forged"}, "invalid_state"),
            ({"error": "access_denied"}, "access_denied"),
            ({"error": "access_denied", "error_description": "No & never#!"}, "No & never#!"),
        ):
            assert told(await Browser(identity, provider, "acme").back(carried)) == {"error": error}

    async def test_a_code_of_somebody_else_is_worth_nothing(
        self, identity: Identity, provider: LoopbackProvider
    ) -> None:
        """A stolen code needs the verifier of the browser that asked for it."""
        thief, victim = Browser(identity, provider, "acme"), Browser(identity, provider, "acme")
        stolen = provider.approve(await victim.begin())["code"]
        state = provider.approve(await thief.begin())["state"]
        assert told(await thief.back({"code": stolen, "state": state})) == {"error": "oauth_failed"}


class TestIdTokens:
    async def test_a_foreign_nonce_or_audience_is_refused(self, identity: Identity, provider: LoopbackProvider) -> None:
        browser = Browser(identity, provider, "acme")
        provider.nonce = "of another sign-in"
        assert told(await browser.sign_in()) == {"error": "oauth_failed"}
        provider.nonce, provider.audience = None, "another client"
        assert told(await browser.sign_in()) == {"error": "oauth_failed"}

    async def test_a_provider_that_is_away_is_503_before_and_an_error_after(
        self, identity: Identity, provider: LoopbackProvider
    ) -> None:
        provider.down = True
        answer = await identity.http.get("/api/v1/auth/oauth/acme/url")
        assert_problem(answer, 503, "identity.provider_unreachable")
        assert answer.headers["retry-after"]
        github = Browser(identity, provider, "github")
        assert told(await github.sign_in()) == {"error": "oauth_failed"}


class TestConnect:
    async def test_an_account_is_connected_shown_and_disconnected(
        self, identity: Identity, provider: LoopbackProvider
    ) -> None:
        ada = await identity.person()
        provider.user = Someone(7, None, username="ada & co")
        landed = told(await Browser(identity, provider, "github").connect(ada))
        assert landed == {"connect": "true", "provider": "github", "connected": "true", "username": "ada & co"}
        shown = await connected(identity, ada)
        assert shown == [{"provider": "github", "username": "ada & co", "connected": True}]
        answer = await identity.http.delete("/api/v1/auth/oauth/github/disconnect", headers=ada.headers)
        assert answer.json()["success"] is True
        assert await connected(identity, ada) == []
        answer = await identity.http.delete("/api/v1/auth/oauth/github/disconnect", headers=ada.headers)
        assert_problem(answer, 404, "identity.provider_not_connected")

    async def test_an_account_that_signs_somebody_else_in_is_refused(
        self, identity: Identity, provider: LoopbackProvider
    ) -> None:
        browser = Browser(identity, provider, "github")
        await browser.sign_in_as(Someone(7, "ada@example.com"))
        bob = await identity.person()
        assert told(await browser.connect(bob)) == {"error": "already_connected", "connect": "true"}
        assert await connected(identity, bob) == []

    async def test_a_user_who_is_gone_meanwhile_is_told_so(
        self, identity: Identity, provider: LoopbackProvider
    ) -> None:
        ada = await identity.person()
        browser = Browser(identity, provider, "github")
        carried = provider.approve(await browser.begin_connect(ada))
        await execute(identity, "UPDATE users SET is_active = false")
        assert told(await browser.back(carried)) == {"error": "user_not_found", "connect": "true"}

    async def test_the_last_way_to_sign_in_stays(self, identity: Identity, provider: LoopbackProvider) -> None:
        landed = told(await Browser(identity, provider, "github").sign_in())
        person = Person("", "", landed["access_token"], landed["refresh_token"])
        answer = await identity.http.delete("/api/v1/auth/oauth/github/disconnect", headers=person.headers)
        assert_problem(answer, 400, "identity.last_sign_in_method")
        await Browser(identity, provider, "gitlab").connect(person)
        answer = await identity.http.delete("/api/v1/auth/oauth/github/disconnect", headers=person.headers)
        assert answer.status_code == 200

    async def test_an_account_on_the_waiting_list_connects_nothing(self, identity: Identity) -> None:
        ada = await identity.person()
        await execute(identity, "UPDATE users SET waitlist_status = 'pending'")
        for method, path in (("GET", "connected"), ("POST", "github/connect"), ("DELETE", "github/disconnect")):
            answer = await identity.http.request(method, f"/api/v1/oauth/{path}", headers=ada.headers)
            assert answer.status_code == 403, path
            assert answer.json()["detail"] == {
                "error": "waitlist_pending",
                "message": "This account waits for approval.",
                "waitlist_status": "pending",
            }


class TestCopying:
    async def test_a_super_admin_copies_tokens_but_never_the_sign_in(
        self, identity: Identity, provider: LoopbackProvider
    ) -> None:
        admin, ada = await identity.person("root@example.com"), await identity.person("ada@example.com")
        path, body = "/api/v1/auth/oauth/github/copy-from", {"source_email": "ADA@example.com"}
        assert_problem(await identity.http.post(path, json=body, headers=admin.headers), 403, "auth.forbidden")
        await execute(identity, "UPDATE users SET is_super_admin = true WHERE email = 'root@example.com'")
        admin = await identity.login("root@example.com")
        answer = await identity.http.post(path, json=body, headers=admin.headers)
        assert_problem(answer, 400, "identity.source_not_connected")
        provider.user = Someone(7, None, username="ada")
        browser = Browser(identity, provider, "github")
        await browser.connect(ada)
        copied = await identity.http.post(path, json=body, headers=admin.headers)
        assert copied.json() == {
            "success": True,
            "message": "The tokens were copied.",
            "provider": "github",
            "username": "ada",
        }
        assert [entry["username"] for entry in await connected(identity, admin)] == ["ada"]
        landed = told(await browser.sign_in())
        assert (await me(identity, landed["access_token"]))["email"] == "ada@example.com"
        answer = await identity.http.post(path, json={"source_email": "nobody@example.com"}, headers=admin.headers)
        assert_problem(answer, 404, "identity.user_not_found")
        trail = await execute(identity, "SELECT subject_id FROM audit_log WHERE action = 'oauth.copied'")
        assert len({entry["subject_id"] for entry in trail}) == 2


class TestListing:
    async def test_the_three_known_providers_come_first(self, identity: Identity, provider: LoopbackProvider) -> None:
        for mount in ("/api/v1/oauth", "/api/v1/auth/oauth"):
            listed = (await identity.http.get(f"{mount}/providers")).json()["providers"]
            assert [(entry["name"], entry["enabled"]) for entry in listed] == [
                ("github", True),
                ("google", False),
                ("gitlab", True),
                ("acme", True),
            ]
            assert listed[0]["manage_url"] == f"{provider.url}/settings/connections/applications/{CLIENT_ID}"
            assert listed[1]["manage_url"] is None

    async def test_the_redirect_address_is_told_for_any_name(self, identity: Identity) -> None:
        answer = (await identity.http.get("/api/v1/auth/oauth/GitHub/redirect-uri")).json()
        assert answer["calculated_redirect_uri"] == f"{PUBLIC_URL}/api/v1/auth/oauth/github/callback"
        assert answer["base_redirect_uri"] == FRONT
        for name in ("..", "a b", "x" * 51, "%00"):
            assert (await identity.http.get(f"/api/v1/auth/oauth/{name}/redirect-uri")).status_code in (404, 422)

    @pytest.mark.parametrize("path", ["google/url", "google", "nobody/url"])
    async def test_a_provider_that_is_not_set_up_is_refused(self, identity: Identity, path: str) -> None:
        answer = await identity.http.get(f"/api/v1/auth/oauth/{path}", follow_redirects=False)
        assert_problem(answer, 400, "identity.provider_not_configured")


class TestSettings:
    def test_an_unknown_name_needs_an_issuer_and_production_needs_tls(self, settings: dict[str, Any]) -> None:
        given = {"client_id": "x", "client_secret": "y"}
        with pytest.raises(ValueError, match="needs its issuer"):
            Settings(oauth_providers={"acme": given}, **settings)
        with pytest.raises(ValueError, match="not a usable name"):
            Settings(oauth_providers={"connected": given | {"issuer": "https://x"}}, **settings)
        with pytest.raises(ValueError, match="must be reached by https"):
            Settings(env="production", oauth_providers={"acme": given | {"issuer": "http://x"}}, **settings)


async def eventually_refused(identity: Identity, token: str) -> None:
    """The token is dead within the second that the poll takes; four times that is the ceiling."""
    for _ in range(80):
        answer = await identity.http.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {token}"})
        if answer.status_code == 401:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the credential was still accepted after 4 s")
