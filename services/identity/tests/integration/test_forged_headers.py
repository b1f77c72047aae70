"""Headers by which a client says who it is are believed by nobody, also where no gateway has removed them."""

from __future__ import annotations

from typing import Any

from gateway_edge.routes import load

from .conftest import PASSWORD, Identity, Person

# Metadata of our own gRPC calls and events, and what proxies in front of other programs assert.
FURTHER = (
    *("X_User_Id", "X-Internal-User", "X-Internal-Request", "X-Super-Admin", "X-Agent-Id", "X-Validator-Id"),
    *("X-Session-Id", "X-Jwt-Claims", "X-Amzn-Oidc-Identity", "X-Goog-Authenticated-User-Id", "X-Ms-Client-Principal"),
    *("Omoios-Principal", "Omoios-Request", "Subject", "Organization", "Sid", "Sub"),
)
NAMES = sorted({*load().removed_request_headers, *FURTHER})


def claiming(victim: Person, organization: str) -> list[dict[str, str]]:
    """All names at once with each thing that could be taken for the victim, his organization or an operator."""
    values = (victim.id, f"user:{victim.id}", victim.email, organization, "true", "owner", "identity")
    return [dict.fromkeys(NAMES, value) for value in values]


async def state(identity: Identity) -> list[Any]:
    """Everything that a change of identity could have written."""
    async with identity.running.service.db.reader() as tx:
        connection = await tx.connection()
        counts = []
        for table in ("users", "organizations", "organization_memberships", "sessions", "api_keys", "outbox"):
            counts.append((table, await connection.fetchval(f"SELECT count(*) FROM {table}")))
        return counts


async def test_nobody_becomes_somebody(identity: Identity) -> None:
    victim = await identity.super_admin()
    organization = await identity.organization(victim)
    requests: list[tuple[str, str, Any]] = [
        ("GET", "/auth/me", None),
        ("PATCH", "/auth/me", {"full_name": "Taken over"}),
        ("GET", "/auth/sessions", None),
        ("POST", "/auth/logout", None),
        ("POST", "/auth/api-keys", {"name": "mine", "scopes": ["org:read"]}),
        ("GET", "/organizations", None),
        ("GET", f"/organizations/{organization}", None),
        ("PATCH", f"/organizations/{organization}", {"name": "Taken over"}),
        ("GET", f"/users/{victim.id}", None),
        ("GET", "/onboarding/status", None),
    ]
    before = await state(identity)
    for headers in claiming(victim, organization):
        for method, path, body in requests:
            answer = await identity.http.request(method, f"/api/v1{path}", json=body, headers=headers)
            assert answer.status_code == 401, (method, path, headers, answer.text)
    assert await state(identity) == before


async def test_somebody_stays_who_he_is(identity: Identity) -> None:
    victim, eve = await identity.super_admin(), await identity.person()
    organization = await identity.organization(victim)
    own = await identity.organization(eve)
    for headers in claiming(victim, organization):
        signed = headers | eve.headers
        assert (await identity.http.get("/api/v1/auth/me", headers=signed)).json()["id"] == eve.id
        listed = (await identity.http.get("/api/v1/organizations", headers=signed)).json()
        assert [one["id"] for one in listed] == [own]
        path = f"/api/v1/organizations/{organization}"
        assert (await identity.http.get(path, headers=signed)).status_code == 404
        assert (await identity.http.patch(path, json={"name": "Mine"}, headers=signed)).status_code == 404
    made = await identity.http.post(
        "/api/v1/organizations",
        json={"name": "Made", "slug": "made-by-eve"},
        headers=claiming(victim, organization)[0] | eve.headers,
    )
    assert made.status_code == 201, made.text
    assert made.json()["owner_id"] == eve.id


async def test_signing_in_is_for_the_account_that_is_named(identity: Identity) -> None:
    victim, eve = await identity.super_admin(), await identity.person()
    organization = await identity.organization(victim)
    headers = claiming(victim, organization)[0]
    answer = await identity.http.post(
        "/api/v1/auth/login", json={"email": eve.email, "password": PASSWORD}, headers=headers
    )
    identity.http.cookies.clear()
    tokens = answer.json()
    for token in (tokens, None):
        if token is None:
            refreshed = await identity.http.post(
                "/api/v1/auth/refresh", json={"refresh_token": tokens["refresh_token"]}, headers=headers
            )
            identity.http.cookies.clear()
            token = refreshed.json()
        mine = await identity.http.get(
            "/api/v1/auth/me", headers={"Authorization": f"Bearer {token['access_token']}"} | headers
        )
        assert mine.json()["id"] == eve.id
