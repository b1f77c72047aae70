"""Request ids, headers, CORS, addresses, unknown paths, the log line and the metrics."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from fastapi import APIRouter, Request

from servicekit import context, telemetry
from servicekit import logging as kit_logging
from servicekit.auth.access import PUBLIC
from servicekit.errors import ErrorSpec, Kind
from servicekit.http import client_address
from servicekit.settings import ServiceSettings

GONE = ErrorSpec("kit.gone_fishing", Kind.GONE, "Gone fishing.")


def router() -> APIRouter:
    made = APIRouter(prefix="/api/v1/edge", tags=["edge"])

    @made.get("/ids")
    async def ids() -> list[str]:
        return [context.request_id.get(), context.correlation_id.get()]

    @made.get("/address")
    async def address(request: Request) -> list[str]:
        return [client_address(request), request.url.scheme]

    @made.get("/boom")
    async def boom() -> None:
        raise RuntimeError("the password is hunter2")

    @made.get("/gone")
    async def gone() -> None:
        raise GONE(thing="boat")

    @made.get("/object")
    async def waiting() -> None:
        raise ErrorSpec("kit.waiting", Kind.FORBIDDEN, "Waiting.")(detail_object={"error": "waiting", "position": 3})

    @made.get("/limited")
    async def limited() -> None:
        raise ErrorSpec("kit.limited", Kind.RATE_LIMITED, "Rate limit exceeded: 5 per 1 minute", 11.2)()

    return made


@pytest.mark.parametrize("given", ["abc-123", "x" * 64, "a.b:c_d"])
async def test_a_sane_request_id_is_echoed(serve: Any, given: str) -> None:
    async with serve(router()) as http:
        answer = await http.get("/api/v1/edge/ids", headers={"X-Request-ID": given})
    assert answer.headers["x-request-id"] == given
    assert answer.json() == [given, given]


@pytest.mark.parametrize("given", [None, "", "x" * 65, "a b", "a\tb", "<script>", "ä"])
async def test_any_other_is_replaced(serve: Any, given: str | None) -> None:
    headers = [] if given is None else [(b"X-Request-ID", given.encode())]
    async with serve(router()) as http:
        answer = await http.get("/api/v1/edge/ids", headers=headers)
    made = answer.headers["x-request-id"]
    assert len(made) == 36
    assert answer.json() == [made, made]
    assert context.request_id.get() == ""


async def test_security_headers_and_hsts_in_production(serve: Any) -> None:
    async with serve(router()) as http:
        local = await http.get("/api/v1/edge/ids")
        unknown = await http.get("/api/v1/edge/nothing")
    async with serve(router(), settings=ServiceSettings(env="production")) as http:
        production = await http.get("/api/v1/edge/ids")
    for answer in (local, unknown, production):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "strict-origin-when-cross-origin"
        assert answer.headers["permissions-policy"] == "geolocation=(), microphone=(), camera=()"
    assert "strict-transport-security" not in local.headers
    assert production.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"


async def test_cors_is_for_the_configured_origins_with_credentials(serve: Any) -> None:
    ask = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "authorization,idempotency-key"}
    async with serve(router()) as http:
        preflight = await http.options("/api/v1/edge/ids", headers={"Origin": "http://localhost:3000", **ask})
        foreign = await http.options("/api/v1/edge/ids", headers={"Origin": "http://evil.test", **ask})
        answer = await http.get("/api/v1/edge/ids", headers={"Origin": "http://localhost:3000"})
        refused = await http.get("/api/v1/edge/gone", headers={"Origin": "http://localhost:3000"})
        other = await http.get("/api/v1/edge/ids", headers={"Origin": "http://evil.test"})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert preflight.headers["access-control-allow-credentials"] == "true"
    assert "idempotency-key" in preflight.headers["access-control-allow-headers"].lower()
    assert foreign.status_code == 400
    assert "access-control-allow-origin" not in foreign.headers
    for found in (answer, refused):
        assert found.headers["access-control-allow-origin"] == "http://localhost:3000"
        assert "X-Request-ID" in found.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in other.headers


async def test_problems(serve: Any) -> None:
    async with serve(router()) as http:
        gone = await http.get("/api/v1/edge/gone")
        waiting = await http.get("/api/v1/edge/object")
        limited = await http.get("/api/v1/edge/limited")
        boom = await http.get("/api/v1/edge/boom")
        unknown = await http.get("/api/v1/nothing")
        method = await http.delete("/api/v1/edge/ids")
        head = await http.head("/api/v1/nothing")
        docs = [
            (await http.get(path)).status_code for path in ("/docs", "/redoc", "/openapi.json", "/api/v1/edge/ids/")
        ]
    assert gone.headers["content-type"] == "application/problem+json"
    assert gone.json() == {
        "thing": "boat",
        "type": "urn:omoios:problem:kit.gone_fishing",
        "title": "Gone",
        "status": 410,
        "detail": "Gone fishing.",
        "instance": "/api/v1/edge/gone",
        "code": "kit.gone_fishing",
        "request_id": gone.headers["x-request-id"],
    }
    assert waiting.status_code == 403
    assert waiting.headers["content-type"] == "application/json"
    assert waiting.json()["detail"] == {"error": "waiting", "position": 3}
    assert waiting.json()["code"] == "kit.waiting"
    assert limited.status_code == 429
    assert limited.headers["retry-after"] == "12"
    assert limited.json()["error"] == limited.json()["detail"] == "Rate limit exceeded: 5 per 1 minute"
    assert boom.status_code == 500
    assert boom.json()["code"] == "service.internal"
    assert b"hunter2" not in boom.content
    assert (unknown.status_code, unknown.json()["code"]) == (404, "request.route_not_found")
    assert (method.status_code, method.headers["allow"]) == (405, "GET")
    assert (head.status_code, head.content) == (404, b"")
    assert docs == [404, 404, 404, 404]


@pytest.mark.parametrize(
    ("forwarded", "trusted", "expected"),
    [
        ("203.0.113.7", ["127.0.0.1"], "203.0.113.7"),
        ("6.6.6.6, 203.0.113.7", ["127.0.0.1"], "203.0.113.7"),
        ("203.0.113.7, 10.0.0.9", ["127.0.0.0/8", "10.0.0.0/8"], "203.0.113.7"),
        ("203.0.113.7", [], "127.0.0.1"),
        ("nonsense", ["127.0.0.1"], "127.0.0.1"),
        ("2001:db8::1", ["127.0.0.1"], "2001:db8::1"),
    ],
)
async def test_the_client_address_comes_from_trusted_proxies_only(
    serve: Any, forwarded: str, trusted: list[str], expected: str
) -> None:
    settings = ServiceSettings(env="test", trusted_proxies=trusted)
    async with serve(router(), settings=settings) as http:
        headers = {"X-Forwarded-For": forwarded, "X-Forwarded-Proto": "https"}
        answer = await http.get("/api/v1/edge/address", headers=headers)
    assert answer.json() == [expected, "https" if trusted else "http"]


async def test_one_log_line_without_the_query(serve: Any, capfdbinary: Any) -> None:
    kit_logging.configure(ServiceSettings(env="test"), "kit")
    async with serve(router()) as http:
        await http.get("/api/v1/edge/ids?token=hunter2", headers={"X-Request-ID": "r-1"})
        await http.get("/livez")
        await http.get("/api/v1/edge/boom")
    lines = [orjson.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert [line["operation"] for line in requests] == ["edge.ids", "edge.boom"]
    first = requests[0]
    assert first["path"] == "/api/v1/edge/ids"
    assert (first["status"], first["method"], first["request_id"]) == (200, "GET", "r-1")
    assert (first["subject"], first["client"], first["service"]) == ("user:ada", "127.0.0.1", "kit")
    assert "token" not in orjson.dumps(first).decode()
    failures = [line for line in lines if line["event"] == "request failed"]
    assert len(failures) == 1
    assert "RuntimeError" in failures[0]["exception"]


async def test_metrics_by_operation(serve: Any) -> None:
    async with serve(router()) as http:
        before = telemetry.REGISTRY.get_sample_value(
            "http_server_request_duration_seconds_count",
            {"method": "GET", "operation": "edge.gone", "status_class": "4xx"},
        )
        await http.get("/api/v1/edge/gone")
        await http.get("/api/v1/unknown/123")
        text = (await http.get("/metrics")).text
    after = telemetry.REGISTRY.get_sample_value(
        "http_server_request_duration_seconds_count",
        {"method": "GET", "operation": "edge.gone", "status_class": "4xx"},
    )
    assert after == (before or 0) + 1
    assert 'operation="none",status_class="4xx"' in text
    assert "http_server_active_requests 1.0" in text
    assert "/api/v1/unknown/123" not in text


async def test_an_application_refuses_what_the_access_table_does_not_know(make_service: Any) -> None:
    from servicekit.auth.access import AccessTableMismatch
    from servicekit.http.app import create_app

    service = make_service(router(), operations={"edge.nowhere": PUBLIC})
    with pytest.raises(AccessTableMismatch, match=r"edge\.nowhere"):
        create_app(service)
    del service.access.operations["edge.nowhere"]
    del service.access.operations["edge.ids"]
    with pytest.raises(AccessTableMismatch, match=r"edge\.ids"):
        create_app(service)
