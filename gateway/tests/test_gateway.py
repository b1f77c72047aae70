"""What passes the real gateway, and how."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.tests.conftest import NOT_BUILT, Gateway, Gateways, Upstreams
from gateway.tests.polling import eventually
from gateway_edge.pending import Operation
from gateway_edge.routes import EDGE, load
from gateway_edge.traefik_config import Options, render
from omoios_local.embedded.process import free_port

ROOT = Path(__file__).resolve().parents[2]


def test_every_operation_reaches_its_owner(gateway: Gateway, operations: list[Operation]) -> None:
    routes = load()
    for operation in operations:
        path = operation.path.replace("{", "x").replace("}", "")
        owner = routes.owner_of(path)
        answer = gateway.client.request(operation.method, path)
        assert answer.status_code == 200, operation
        if owner != EDGE:
            assert (answer.json()["service"], answer.json()["path"]) == (owner, path), operation
            assert answer.json()["method"] == operation.method


def test_every_call_of_the_web_client_reaches_a_service(gateway: Gateway) -> None:
    with (ROOT / "tests/contract/frontend-calls.csv").open(encoding="utf-8") as file:
        calls = {(row["method"], row["path_template"]) for row in csv.DictReader(file)}
    for method, template in sorted(calls):
        if method not in ("WS", "ANY"):
            path = template.replace("{", "x").replace("}", "")
            assert gateway.client.request(method, path).json()["service"] == load().owner_of(path), template


def test_every_preflight_of_the_web_client_is_answered_by_a_service(gateway: Gateway, strict_gateway: Gateway) -> None:
    """Only services know which headers and methods they take; the gateway once said none of them at `/auth`."""
    with (ROOT / "tests/contract/frontend-calls.csv").open(encoding="utf-8") as file:
        calls = sorted((row["path_template"], row["method"]) for row in csv.DictReader(file))
    groups = {path.split("/")[3]: (method, path) for path, method in calls if method not in ("WS", "ANY")}
    assert {"auth", "tickets", "github"} <= set(groups)
    for group, (method, template) in groups.items():
        path = template.replace("{", "x").replace("}", "")
        asked = {
            "Origin": "http://localhost:3000",
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        for client in (gateway.client, strict_gateway.client):
            answer = client.options(path, headers=asked)
            assert answer.content, group
            assert (answer.json()["service"], answer.json()["method"]) == (load().owner_of(path), "OPTIONS"), group


@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("/api/v1/specs/s1/events", "agents"),
        ("/api/v1/specs/s1/events/1?after=2", "agents"),
        ("/api/v1/specs/s1/eventsx", "workflow"),
        ("/api/v1/specs/s1%2Fevents", "workflow"),
        ("/api/v1/projects/p1/githubx", "workflow"),
        ("/api/v1/projects/p1/github/connect", "vcs"),
        ("/api/v1/github/repos-diagnostic", "vcs"),
        ("/api/v1/github/repos/o/r/contents/a%2Fb%20c.py", "vcs"),
        ("/api/v1//tasks/./t1", "workflow"),
        ("/api/v1/debug/tasks/pending", "workflow"),
    ],
)
def test_longest_rule_wins(gateway: Gateway, path: str, service: str) -> None:
    assert gateway.client.get(path).json()["service"] == service


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/api/v1",
        "/api/v1/agentsx",
        "/api/v1/tickets%2Fx",
        "/metrics",
        "/api/v1/debug",
        "/health/",
        "/.well-known/jwks.json/x",
    ],
)
def test_a_path_of_nobody_is_a_problem(gateway: Gateway, path: str) -> None:
    answer = gateway.client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "edge.not_found"
    assert answer.json()["instance"] == path


@pytest.mark.parametrize(
    "path", ["/api/v1/debug/tasks/pending", "/api/v1/%64ebug/tasks/pending", "/api/v1/debug/health"]
)
def test_debug_has_no_route_in_production(gateway: Gateway, strict_gateway: Gateway, path: str) -> None:
    assert gateway.client.get(path).status_code == 200
    answer = strict_gateway.client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "edge.not_found")


def test_the_edge_answers_for_the_whole_system(gateway: Gateway) -> None:
    assert gateway.client.get("/").json()["name"] == "OmoiOS"
    assert gateway.client.get("/openapi.json").json()["openapi"].startswith("3.1")
    for page in ("/docs", "/redoc"):
        assert gateway.client.get(page).headers["content-type"].startswith("text/html")
    assert gateway.client.get("/docs/assets/swagger-ui.css").status_code == 200
    health = gateway.client.get("/health")
    assert health.status_code == 200
    assert set(health.json()["services"]) == {"identity", "workflow", "agents", "monitoring", "billing", "vcs"}


def test_a_service_keeps_its_own_503(gateway: Gateway) -> None:
    answer = gateway.client.get("/api/v1/billing/own-503")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "7"
    assert answer.json() == {"detail": "Stripe is away.", "code": "billing.stripe_unavailable"}


def test_a_proxied_502_passes_where_the_contract_wants_it(gateway: Gateway) -> None:
    answer = gateway.client.get("/ingest/own-502")
    assert (answer.status_code, answer.json()) == (502, {"error": "the proxied host is away"})


@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
def test_a_502_is_never_anything_else(gateway: Gateway, method: str) -> None:
    answer = gateway.client.request(method, "/api/v1/tasks/own-502")
    assert answer.status_code == 502
    assert answer.json()["code"] == "edge.service_unavailable"


def test_logins_are_limited_by_address_under_contract_limits(strict_gateway: Gateway) -> None:
    origin = {"Origin": "http://localhost:3000"}
    answers = [strict_gateway.client.post("/api/v1/auth/login", headers=origin) for _ in range(40)]
    refused = [answer for answer in answers if answer.status_code == 429]
    passed = [answer for answer in answers if answer.status_code == 200]
    assert len(passed) + len(refused) == 40
    # A bucket of 20 that is refilled with one every 2 s.
    assert 20 <= len(passed) <= 25
    problem = refused[0]
    assert problem.headers["content-type"] == "application/problem+json"
    assert (problem.json()["status"], problem.json()["code"]) == (429, "edge.rate_limited")
    # The contract's clients look for the text under `error`.
    assert problem.json()["error"] == problem.json()["detail"] != ""
    # One token comes back every 2 s.
    assert problem.headers["retry-after"] == "2"
    assert refused[0].headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "Retry-After" in refused[0].headers["access-control-expose-headers"]
    # Everything else of the group, and preflights, have a bucket of their own.
    assert strict_gateway.client.get("/api/v1/auth/me").status_code == 200
    assert strict_gateway.client.options("/api/v1/auth/login").status_code == 200


def test_a_service_s_own_429_passes_as_it_is(strict_gateway: Gateway, gateway: Gateway) -> None:
    for one in (strict_gateway, gateway):
        answer = one.client.post("/api/v1/auth/own-429")
        assert (answer.status_code, answer.json()) == (429, {"code": "identity.login_limited"})
        assert answer.headers["retry-after"] == "37"


def test_the_limits_are_nowhere_at_the_public_port(strict_gateway: Gateway) -> None:
    for path in ("/auth", "/auth-credentials", "/ping"):
        assert strict_gateway.client.get(path).json()["code"] == "edge.not_found"


def test_a_forged_address_gets_no_bucket_of_its_own(strict_gateway: Gateway) -> None:
    statuses = {
        strict_gateway.client.post("/api/v1/auth/register", headers={"X-Forwarded-For": f"203.0.113.{n}"}).status_code
        for n in range(40)
    }
    assert 429 in statuses


def test_logins_are_free_under_loose_limits(gateway: Gateway) -> None:
    assert {gateway.client.post("/api/v1/auth/login").status_code for _ in range(60)} == {200}


def test_the_access_log_holds_no_secret(gateways: Gateways) -> None:
    gateway = gateways.start("logged")
    secrets = {"Authorization": "Bearer header-secret", "Cookie": "omoios_access_token=cookie-secret"}
    gateway.client.get("/api/v1/ws/events?token=query-secret&after=1", headers=secrets)
    gateway.client.get("/nothing?token=query-secret")
    gateway.client.get("/api/v1/tasks/t1?token=query-secret", headers={"X-Request-ID": "req-77"})

    def lines() -> list[dict[str, Any]]:
        text = gateway.access_log.read_text() if gateway.access_log.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    eventually(lambda: any(line.get("RequestPath") == "/api/v1/tasks/t1" for line in lines()), "the line is written")
    text = gateway.access_log.read_text()
    assert "secret" not in text
    assert "token" not in text
    line = next(line for line in lines() if line.get("RequestPath") == "/api/v1/tasks/t1")
    assert (line["RequestMethod"], line["DownstreamStatus"], line["RouterName"]) == ("GET", 200, "tasks@file")
    assert line["request_X-Request-Id"] == "req-77"
    assert line["ClientHost"] == "127.0.0.1"


def test_unbuilt_operations_say_so_and_built_ones_pass(gateways: Gateways) -> None:
    built = [Operation("GET", "/api/v1/tickets/list"), Operation("GET", "/api/v1/tickets/{ticket_id}/why")]
    gateway = gateways.start("pending", not_built=NOT_BUILT, built=built)

    def code(method: str, path: str) -> object:
        answer = gateway.client.request(method, path)
        return answer.json().get("code") if answer.status_code == 404 else answer.status_code

    assert code("GET", "/api/v1/tickets/t1?x=1") == "edge.not_built_yet"
    assert code("POST", "/api/v1/tickets/t1/block") == "edge.not_built_yet"
    assert code("GET", "/ingest/a/b") == "edge.not_built_yet"
    assert code("GET", "/api/v1/specs/s1/events") == "edge.not_built_yet"
    assert gateway.client.head("/api/v1/tickets/t1").status_code == 404
    answer = gateway.client.post("/api/v1/tickets/t1/block")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["operation"] == "POST /api/v1/tickets/{ticket_id}/block"
    for method, path in (
        ("PATCH", "/api/v1/tickets/t1"),
        ("OPTIONS", "/api/v1/tickets/t1"),
        ("GET", "/api/v1/tickets/list"),
        ("GET", "/api/v1/tickets/t1/why"),
        ("GET", "/api/v1/tickets/t1/block"),
        ("GET", "/api/v1/specs/s1"),
        ("POST", "/ingest/a/b"),
    ):
        assert code(method, path) == 200, path


def test_a_service_without_instances_is_a_problem_until_it_is_back(gateways: Gateways, upstreams: Upstreams) -> None:
    gateway = gateways.start("empty", instances={"vcs": []})
    answer = gateway.client.get("/api/v1/commits/c1", headers={"Origin": "http://localhost:3000"})
    assert answer.status_code == 502
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert answer.json()["code"] == "edge.service_unavailable"
    assert gateway.client.get("/api/v1/tasks/t1").status_code == 200
    port = int(gateway.url.rpartition(":")[2])
    options = Options(access_log=str(gateway.access_log))
    ports = {"gateway": port, "limits": free_port(), **upstreams.ports}
    render(ports, gateway.directory, options=options, not_built=[], built=[])
    eventually(lambda: gateway.client.get("/api/v1/commits/c1").status_code == 200, "the rewritten file is followed")
