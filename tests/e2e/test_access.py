"""Who gets in: every operation of the merged OpenAPI document, called through the gateway."""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

import pytest

from tests.e2e.world import Tenant, World

METHODS = ("get", "post", "put", "patch", "delete")
# What works without signing in. An operation that is not named here must ask for a credential.
PUBLIC = {
    "GET /",
    "GET /health",
    "GET /.well-known/jwks.json",
    "POST /api/v1/auth/login",
    "POST /api/v1/auth/refresh",
    "POST /api/v1/auth/register",
    "POST /api/v1/auth/resend-verification",
    "POST /api/v1/auth/verify-email",
    "POST /api/v1/auth/forgot-password",
    "POST /api/v1/auth/reset-password",
    "POST /api/v1/invitations/lookup",
    "GET /api/v1/users/{user_id}/avatar/{digest}",
    "GET /api/v1/sandboxes/health",
    "GET /api/v1/billing/config",
    "POST /api/v1/billing/webhooks/stripe",
}
PUBLIC |= {
    f"GET /api/v1/{prefix}{path}"
    for prefix in ("oauth", "auth/oauth")
    for path in ("/providers", "/{provider}", "/{provider}/callback", "/{provider}/redirect-uri", "/{provider}/url")
}
# A stream answers when it has something to say; it has journeys of its own.
STREAMS = {"GET /api/v1/events/stream", "GET /api/v1/events"}


@pytest.fixture(scope="module")
def operations(world: World) -> list[tuple[str, str]]:
    """(method, path template) of everything that the gateway documents."""
    document: dict[str, Any] = world.http.get("/openapi.json").json()
    found = [(method.upper(), path) for path, item in document["paths"].items() for method in item if method in METHODS]
    assert len(found) > 70
    return found


def filled(path: str) -> str:
    """The path with an id of nothing for each parameter."""
    return re.sub(r"\{[^}]*\}", lambda _: str(uuid4()), path)


def test_every_operation_asks_for_a_credential(world: World, operations: list[tuple[str, str]]) -> None:
    wrong = []
    for method, path in operations:
        answer = world.http.request(method, filled(path), json={} if method in ("POST", "PUT", "PATCH") else None)
        public = f"{method} {path}" in PUBLIC
        if public == (answer.status_code == 401 and answer.json().get("code") == "auth.unauthenticated"):
            wrong.append(f"{method} {path}: {answer.status_code} {answer.text[:120]}")
    assert not wrong, "\n".join(wrong)
    answer = world.http.get("/api/v1/projects")
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["status"] == 401


def test_every_operation_answers_its_caller(world: World, operations: list[tuple[str, str]], other: Tenant) -> None:
    """Nothing that exists breaks on an empty body or an unknown id: 5xx, and the page for what is not built, never."""
    wrong = []
    for method, path in operations:
        if f"{method} {path}" in STREAMS or path.endswith(("/logout", "/logout-everywhere", "/change-password")):
            continue
        answer = (
            other.owner.call(
                method, filled(path).removeprefix("/api/v1"), {} if method in ("POST", "PUT", "PATCH") else None
            )
            if path.startswith("/api/v1")
            else world.http.request(method, filled(path))
        )
        if answer.status_code >= 500 or "edge.not_" in answer.text:
            wrong.append(f"{method} {path}: {answer.status_code} {answer.text[:160]}")
    assert not wrong, "\n".join(wrong)


FORGED = {
    "X-User-Id": "00000000-0000-7000-8000-000000000001",
    "X-Agent-ID": "agent-1",
    "X-Validator-ID": "agent-1",
    "X-Forwarded-User": "root",
    "X-Organization-Id": "00000000-0000-7000-8000-000000000001",
    "X-Auth-Request-User": "root",
    "Omoios-Subject": "user:root",
    "Remote-User": "root",
    "X-Super-Admin": "true",
}


def test_forged_identity_headers_do_nothing(world: World, first: Tenant, other: Tenant) -> None:
    forged = {**FORGED, "X-User-Id": first.owner.user_id, "X-Organization-Id": first.organization_id}
    paths = ("/api/v1/auth/me", "/api/v1/projects", f"/api/v1/projects/{first.project_id}", "/api/v1/agents")
    for path in paths:
        assert world.http.get(path, headers=forged).status_code == 401, path
    # With a credential of someone else the headers change neither who asks nor what he may see.
    signed = {**forged, "Authorization": f"Bearer {other.owner.token}"}
    assert world.http.get("/api/v1/auth/me", headers=signed).json()["id"] == other.owner.user_id
    assert world.http.get(f"/api/v1/projects/{first.project_id}", headers=signed).status_code == 404
    # A report of results names its agent in a header: it counts for nothing without that agent's own token.
    report = {"task_id": str(uuid4()), "markdown_file_path": "a.md", "result_type": "fix", "summary": "x"}
    assert world.http.post("/api/v1/report_results", headers=forged, json=report).status_code == 401
