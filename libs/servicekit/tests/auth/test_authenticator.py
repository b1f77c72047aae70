"""From credentials to principals: headers, cookies, API keys, memberships, revocations, WebSockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse

from servicekit import context
from servicekit.auth import CurrentUser, Membership, OptionalUser, Principal, PrincipalType, require_role
from servicekit.auth.api_keys import VerifiedApiKey
from servicekit.auth.authenticator import Authenticator
from servicekit.auth.credentials import origin_of
from servicekit.auth.memberships import REFRESH_BURST, MembershipDirectory
from servicekit.auth.revocations import Revocation, Revocations
from servicekit.auth.testing import Signing
from servicekit.auth.websocket import CredentialWatch
from servicekit.errors import AppError, Kind


class Source:
    """Memberships in memory; counts the loads."""

    def __init__(self, **users: dict[str, str]) -> None:
        self.users: dict[str, dict[str, str]] = users
        self.loads = 0
        self.gate: asyncio.Event | None = None

    async def memberships_of(self, user_id: str) -> Sequence[Membership]:
        self.loads += 1
        rows = dict(self.users.get(user_id, {}))
        if self.gate is not None:
            await self.gate.wait()
        return [Membership(org, role, frozenset({"project:*"})) for org, role in rows.items()]


def authenticator(signing: Signing, source: Source | None = None, **kw: Any) -> Authenticator:
    memberships = MembershipDirectory(source or Source(), kw.pop("fetch", None), clock=kw.pop("mono", time.monotonic))
    return Authenticator(
        signing.verifier(),
        memberships,
        kw.pop("revocations", Revocations()),
        allowed_origins=["http://127.0.0.1:18000", "http://localhost:3000/"],
        clock=kw.pop("clock", time.time),
        **kw,
    )


def scope(method: str = "GET", query: str = "", **headers: str) -> dict[str, Any]:
    return {
        "type": "http",
        "method": method,
        "query_string": query.encode(),
        "headers": [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()],
    }


async def test_bearer_comes_before_the_cookie(keypair: Signing) -> None:
    auth = authenticator(keypair, Source(alice={"org-1": "owner"}))
    alice, bob = keypair.user_token("alice", session_id="s"), keypair.user_token("bob")
    principal = await auth.authenticate(scope(authorization=f"Bearer {alice}", cookie=f"omoios_access_token={bob}"))
    assert principal is not None
    assert (principal.id, principal.session_id, principal.subject) == ("alice", "s", "user:alice")
    assert principal.can("project:write", "org-1")
    by_cookie = await auth.authenticate(scope(cookie=f"a=b; omoios_access_token={bob}; c=d"))
    assert by_cookie is not None
    assert by_cookie.id == "bob"
    assert await auth.authenticate(scope()) is None
    assert await auth.authenticate(scope(cookie="xomoios_access_token=abc; omoios_access_token=")) is None


@pytest.mark.parametrize(
    "value", ["Basic abc", "Bearer", "Bearer  ", "bearer x", "Token abc", "", "Bearer omk_unknown"]
)
async def test_a_bad_authorization_is_refused_and_the_cookie_not_tried(keypair: Signing, value: str) -> None:
    auth = authenticator(keypair)
    cookie = f"omoios_access_token={keypair.user_token('alice')}"
    with pytest.raises(AppError) as error:
        await auth.authenticate(scope(authorization=value, cookie=cookie))
    assert error.value.kind is Kind.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({"origin": "http://127.0.0.1:18000"}, True),
        ({"origin": "http://localhost:3000"}, True),
        ({"origin": "HTTP://LOCALHOST:3000"}, True),
        ({"sec_fetch_site": "same-origin"}, True),
        ({"sec_fetch_site": "same-site"}, True),
        ({"sec_fetch_site": "cross-site"}, False),
        ({"sec_fetch_site": "none"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "http://localhost:3000.evil.example"}, False),
        ({"origin": "https://localhost:3000"}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://evil.example", "sec_fetch_site": "same-site"}, False),
        ({"origin": "http://[broken", "sec_fetch_site": "same-site"}, False),
        ({}, False),
    ],
)
async def test_a_change_by_cookie_must_come_from_a_page_of_ours(
    keypair: Signing, headers: dict[str, str], passes: bool
) -> None:
    auth = authenticator(keypair)
    token = keypair.user_token("alice")
    for method in ("POST", "PATCH", "PUT", "DELETE"):
        request = scope(method, cookie=f"omoios_access_token={token}", **headers)
        if passes:
            assert await auth.authenticate(request) is not None
        else:
            with pytest.raises(AppError) as error:
                await auth.authenticate(request)
            assert error.value.code == "auth.cross_origin"
    assert await auth.authenticate(scope("GET", cookie=f"omoios_access_token={token}", **headers)) is not None
    assert await auth.authenticate(scope("POST", authorization=f"Bearer {token}", **headers)) is not None


def test_origins_are_compared_whole() -> None:
    assert origin_of("http://Localhost:3000/path") == "http://localhost:3000"
    assert origin_of("null") is None
    assert origin_of("http://[x") is None


class Keys:
    """Identity's answer for API keys; counts the questions."""

    def __init__(self) -> None:
        self.known: dict[str, VerifiedApiKey] = {}
        self.asked = 0

    async def verify(self, key: str) -> VerifiedApiKey | None:
        self.asked += 1
        return self.known.get(key)


async def test_an_api_key_is_asked_for_once_in_thirty_seconds(keypair: Signing, clock: Any) -> None:
    keys = Keys()
    keys.known["omk_good"] = VerifiedApiKey("key-1", "alice", frozenset({"project:read"}), "org-1")
    source = Source(alice={"org-1": "owner", "org-2": "owner"})
    auth = authenticator(keypair, source, verify_api_key=keys.verify, clock=clock)
    for _ in range(5):
        principal = await auth.authenticate(scope(authorization="Bearer omk_good"))
        assert principal is not None
        assert (principal.type, principal.id, principal.user_id) == (PrincipalType.API_KEY, "key-1", "alice")
        assert principal.can("project:read", "org-1")
        assert not principal.can("project:write", "org-1")
        assert not principal.can("project:read", "org-2")
        assert not principal.is_super_admin
    assert keys.asked == 1
    for _ in range(3):
        with pytest.raises(AppError):
            await auth.authenticate(scope(authorization="Bearer omk_bad"))
    assert keys.asked == 2
    clock.now += 31
    keys.known.clear()
    with pytest.raises(AppError):
        await auth.authenticate(scope(authorization="Bearer omk_good"))


async def test_an_api_key_may_stand_in_a_header_of_its_own(keypair: Signing) -> None:
    keys = Keys()
    keys.known["omk_good"] = VerifiedApiKey("key-1", "alice", frozenset({"project:read"}))
    auth = authenticator(keypair, Source(), verify_api_key=keys.verify)
    given = scope() | {"headers": [(b"x-api-key", b"omk_good")]}
    principal = await auth.authenticate(given)
    assert principal is not None
    assert (principal.type, principal.id) == (PrincipalType.API_KEY, "key-1")
    for value in (b"omk_bad", b"", b"a.b.c"):
        with pytest.raises(AppError) as refused:
            await auth.authenticate(scope() | {"headers": [(b"x-api-key", value)]})
        assert refused.value.code == "auth.unauthenticated"


async def test_a_revoked_api_key_is_asked_for_again_at_once(keypair: Signing) -> None:
    keys, revocations = Keys(), Revocations()
    keys.known["omk_good"] = VerifiedApiKey("key-1", "alice", frozenset({"*:*"}))
    auth = authenticator(keypair, verify_api_key=keys.verify, revocations=revocations)
    for type_, id_ in (("api_key", "key-1"), ("user", "alice")):
        await auth.authenticate(scope(authorization="Bearer omk_good"))
        asked = keys.asked
        revocations.apply([revoked(type_, id_)])
        await auth.authenticate(scope(authorization="Bearer omk_good"))
        assert keys.asked == asked + 1


async def test_an_expired_api_key_is_refused(keypair: Signing, clock: Any) -> None:
    keys = Keys()
    keys.known["omk_k"] = VerifiedApiKey("key-1", "alice", frozenset({"*:*"}), expires_at=clock() + 10)
    auth = authenticator(keypair, verify_api_key=keys.verify, clock=clock)
    assert await auth.authenticate(scope(authorization="Bearer omk_k")) is not None
    clock.now += 11
    with pytest.raises(AppError):
        await auth.authenticate(scope(authorization="Bearer omk_k"))


async def test_machine_principals_have_the_membership_of_their_token(keypair: Signing) -> None:
    auth = authenticator(keypair)
    token = keypair.sandbox("org-1", "box-1", task_id="task-1", agent_id="agent-1", attempt=3)
    sandbox = await auth.authenticate_credential(token)
    assert (sandbox.type, sandbox.id, sandbox.claims["attempt"]) == (PrincipalType.SANDBOX, "box-1", 3)
    assert sandbox.can("task:write", "org-1")
    assert not sandbox.can("agent:write", "org-1")
    agent = await auth.authenticate_credential(keypair.agent("org-1", "agent-1"))
    assert agent.can("agent:write", "org-1")
    service = await auth.authenticate_credential(keypair.service("workflow"))
    assert service.memberships == {}


async def test_memberships_are_read_once_in_two_seconds_for_any_number_of_requests(keypair: Signing) -> None:
    mono = SimpleNamespace(now=100.0)
    source = Source(alice={"org-1": "owner"})
    source.gate = asyncio.Event()
    auth = authenticator(keypair, source, mono=lambda: mono.now)
    token = keypair.user_token("alice")
    waiting = [asyncio.create_task(auth.authenticate_token(token)) for _ in range(50)]
    await asyncio.sleep(0.01)
    waiting[0].cancel()
    source.gate.set()
    principals = await asyncio.gather(*waiting[1:])
    assert all(principal.can("project:read", "org-1") for principal in principals)
    await auth.authenticate_token(token)
    assert source.loads == 1
    mono.now += 2.1
    await auth.authenticate_token(token)
    assert source.loads == 2


async def test_a_change_seen_during_a_load_is_not_overwritten_by_it(keypair: Signing) -> None:
    source = Source(alice={"org-1": "owner"})
    source.gate = asyncio.Event()
    auth = authenticator(keypair, source)
    loading = asyncio.create_task(auth.memberships.of("alice"))
    await asyncio.sleep(0.01)
    source.users["alice"] = {}
    auth.memberships.changed("alice")
    source.gate.set()
    assert set(await loading) == {"org-1"}
    assert await auth.memberships.of("alice") == {}


async def test_a_refresh_tells_only_of_a_difference(keypair: Signing) -> None:
    source, truth = Source(), Source(alice={"org-1": "owner"})
    auth = authenticator(keypair, source, fetch=truth.memberships_of)
    principal = await auth.authenticate_token(keypair.user_token("alice"))
    assert not principal.can("project:read", "org-1")
    fresh = await auth.refresh(principal)
    assert fresh is not None
    assert fresh.can("project:read", "org-1")
    assert fresh.session_id == principal.session_id
    assert await auth.refresh(fresh) is None
    assert (await auth.authenticate_token(keypair.user_token("alice"))).can("project:read", "org-1")


async def test_refreshes_are_rationed_and_survive_an_absent_identity(keypair: Signing) -> None:
    mono = SimpleNamespace(now=100.0)
    asked = 0

    async def fetch(_user_id: str) -> Sequence[Membership]:
        nonlocal asked
        asked += 1
        raise OSError("connection refused")

    auth = authenticator(keypair, Source(), fetch=fetch, mono=lambda: mono.now)
    principal = await auth.authenticate_token(keypair.user_token("alice"))
    answers = [await refreshed_or_kind(auth, principal) for _ in range(100)]
    assert answers == [Kind.UNAVAILABLE] * REFRESH_BURST + [None] * (100 - REFRESH_BURST)
    assert asked == REFRESH_BURST
    mono.now += 1.0
    for _ in range(100):
        await refreshed_or_kind(auth, principal)
    assert asked == REFRESH_BURST + 2


async def refreshed_or_kind(auth: Authenticator, principal: Principal) -> Principal | Kind | None:
    try:
        return await auth.refresh(principal)
    except AppError as error:
        return error.kind


def revoked(type_: str, id_: str, when: datetime | None = None) -> Revocation:
    moment = when or datetime.now(UTC)
    return Revocation(type_, id_, moment, moment)


@pytest.mark.parametrize(
    ("type_", "id_", "token"),
    [
        ("user", "alice", lambda s: s.user_token("alice", session_id="s-1")),
        ("session", "s-1", lambda s: s.user_token("alice", session_id="s-1")),
        ("agent", "agent-1", lambda s: s.agent("org", "agent-1")),
        ("sandbox", "box-1", lambda s: s.sandbox("org", "box-1", task_id="t", agent_id="agent-1")),
        ("agent", "agent-1", lambda s: s.sandbox("org", "box-1", task_id="t", agent_id="agent-1")),
        ("service", "workflow", lambda s: s.service("workflow")),
    ],
)
async def test_a_revocation_kills_remembered_tokens_at_once(keypair: Signing, type_: str, id_: str, token: Any) -> None:
    revocations = Revocations()
    auth = authenticator(keypair, revocations=revocations)
    credential = token(keypair)
    principal = await auth.authenticate_credential(credential)
    assert auth.is_current(principal)
    revocations.apply([revoked(type_, "someone-else")])
    await auth.authenticate_credential(credential)
    revocations.apply([revoked(type_, id_)])
    assert not auth.is_current(principal)
    with pytest.raises(AppError) as error:
        await auth.authenticate_credential(credential)
    assert error.value.kind is Kind.UNAUTHENTICATED


async def test_tokens_signed_after_the_revocation_live(keypair: Signing) -> None:
    revocations = Revocations()
    auth = authenticator(keypair, revocations=revocations)
    revocations.apply([revoked("user", "alice", datetime.now(UTC) - timedelta(seconds=10))])
    await auth.authenticate_credential(keypair.user_token("alice"))
    with pytest.raises(AppError):
        await auth.authenticate_credential(keypair.user_token("alice", iat=int(time.time()) - 20))


def test_revocations_only_move_forward_and_are_told_once() -> None:
    revocations = Revocations()
    told: list[tuple[str, str]] = []
    revocations.on_revoked(lambda type_, id_: told.append((type_, id_)))
    now = datetime.now(UTC)
    assert revocations.apply([revoked("user", "alice", now)]) == 1
    assert revocations.apply([revoked("user", "alice", now), revoked("user", "alice", now - timedelta(hours=1))]) == 0
    assert told == [("user", "alice")]
    assert revocations.is_revoked("user", "alice", now.timestamp() - 1)
    assert not revocations.is_revoked("user", "alice", now.timestamp())
    assert revocations.since() < now


def test_old_revocations_are_forgotten() -> None:
    revocations = Revocations()
    revocations.apply([revoked("session", "old", datetime.now(UTC) - timedelta(days=2)), revoked("session", "new")])
    revocations.prune()
    assert len(revocations) == 1
    assert revocations.session_revoked("new")


async def test_a_websocket_brings_its_token_in_the_query_a_header_or_a_cookie_of_ours(keypair: Signing) -> None:
    auth = authenticator(keypair)
    token = keypair.user_token("alice")

    def websocket(query: str = "", **headers: str) -> Any:
        return SimpleNamespace(scope=scope(query=query, **headers) | {"type": "websocket"})

    cookie = f"omoios_access_token={token}"
    for good in (
        websocket(f"entity_ids=p-1&token={token}"),
        websocket(authorization=f"Bearer {token}"),
        websocket(cookie=cookie, origin="http://localhost:3000"),
    ):
        assert (await auth.authenticate_websocket(good)).id == "alice"
    for bad in (
        websocket(),
        websocket("token="),
        websocket("token=x"),
        websocket(cookie=cookie),
        websocket(cookie=cookie, origin="http://evil.example"),
    ):
        with pytest.raises(AppError):
            await auth.authenticate_websocket(bad)


async def test_a_watch_ends_with_the_revocation_of_its_session_only(keypair: Signing) -> None:
    revocations = Revocations()
    auth = authenticator(keypair, revocations=revocations)
    first = await auth.authenticate_credential(keypair.user_token("alice", session_id="s-1"))
    second = await auth.authenticate_credential(keypair.user_token("alice", session_id="s-2"))
    with CredentialWatch(auth, first) as one, CredentialWatch(auth, second) as two:
        revocations.apply([revoked("session", "s-1"), revoked("user", "bob")])
        assert await asyncio.wait_for(one.ended, 1) == "revoked"
        await asyncio.sleep(0)
        assert not two.ended.done()
        revocations.apply([revoked("user", "alice", datetime.now(UTC) + timedelta(seconds=1))])
        assert await asyncio.wait_for(two.ended, 1) == "revoked"
    with CredentialWatch(auth, first) as late:
        assert await asyncio.wait_for(late.ended, 1) == "revoked"
    assert one._registry.by_key == {}


async def test_a_watch_ends_with_its_token(keypair: Signing) -> None:
    auth = authenticator(keypair)
    principal = Principal(PrincipalType.USER, "alice", expires_at=time.time() + 0.05, issued_at=time.time())
    with CredentialWatch(auth, principal) as watch:
        assert await asyncio.wait_for(watch.ended, 1) == "expired"


def application(auth: Authenticator) -> FastAPI:
    app = FastAPI()
    app.state.authenticator = auth

    @app.exception_handler(AppError)
    async def problem(_request: Request, error: AppError) -> JSONResponse:
        return JSONResponse({"code": error.code}, error.kind.status, error.headers)

    @app.get("/me")
    async def me(user: CurrentUser) -> Mapping[str, str]:
        return {"id": user.id}

    @app.get("/maybe")
    async def maybe(user: OptionalUser) -> Mapping[str, str | None]:
        return {"id": user.id if user is not None else None}

    @app.get("/organizations/{org_id}")
    async def organization(
        org_id: str, user: Annotated[Principal, Depends(require_role("admin"))]
    ) -> Mapping[str, str]:
        return {"id": user.id}

    @app.get("/reports")
    async def reports(user: Annotated[Principal, Depends(require_role("admin"))]) -> Mapping[str, str]:
        return {"id": user.id}

    return app


async def test_the_three_dependencies(keypair: Signing) -> None:
    source = Source(alice={"org-1": "admin"}, bob={"org-1": "member"}, carol={"org-1": "owner"})
    transport = httpx2.ASGITransport(app=application(authenticator(keypair, source)))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:

        async def get(path: str, user: str | None, **kw: Any) -> tuple[int, Any]:
            context.principal.set(None)
            headers = {} if user is None else {"Authorization": f"Bearer {keypair.user_token(user, **kw)}"}
            response = await client.get(path, headers=headers)
            if response.status_code == 401:
                assert response.headers["WWW-Authenticate"] == "Bearer"
            body = response.json()
            return response.status_code, body.get("id", body.get("code"))

        assert await get("/me", None) == (401, "auth.unauthenticated")
        assert await get("/me", "alice") == (200, "alice")
        assert await get("/maybe", None) == (200, None)
        assert await get("/maybe", "alice") == (200, "alice")
        assert await get("/organizations/org-1", None) == (401, "auth.unauthenticated")
        assert await get("/organizations/org-1", "alice") == (200, "alice")
        assert await get("/organizations/org-1", "carol") == (200, "carol")
        assert await get("/organizations/org-1", "bob") == (403, "auth.forbidden")
        assert await get("/organizations/org-2", "alice") == (404, "auth.organization_not_found")
        assert await get("/organizations/org-2", "root", super_admin=True) == (200, "root")
        assert await get("/reports", "alice") == (403, "auth.forbidden")
        assert await get("/reports?organization_id=org-1", "alice") == (200, "alice")
        assert await get("/reports", "root", super_admin=True) == (200, "root")
