"""The edge process on its own."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from gateway_edge.app import EdgeApp
from gateway_edge.layout import ASSETS
from gateway_edge.pending import Operation, find, parse_operations
from gateway_edge.routes import SERVICES
from gateway_edge.settings import Settings

DOCUMENT = {"openapi": "3.1.0", "info": {"title": "x", "version": "1"}, "paths": {"/api/v1/tickets/list": {"get": {}}}}
NOT_BUILT = [Operation("GET", "/api/v1/tickets/{ticket_id}"), Operation("POST", "/api/v1/tickets/approve")]


def settings(**values: Any) -> Settings:
    return Settings(env="test", service_urls={}, **values)


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    app = EdgeApp(settings(), not_built=NOT_BUILT, document=json.dumps(DOCUMENT).encode())
    transport = httpx2.ASGITransport(app=app.asgi())
    async with httpx2.AsyncClient(transport=transport, base_url="http://edge") as made:
        yield made


async def test_root_names_the_system_and_its_pages(client: httpx2.AsyncClient) -> None:
    body = (await client.get("/")).json()
    assert body["name"] == "OmoiOS"
    for link in ("docs", "redoc", "openapi", "health"):
        assert (await client.get(body[link])).status_code == 200


async def test_metrics_are_shown_to_nobody_behind_the_gateway(client: httpx2.AsyncClient) -> None:
    await client.get("/")
    text = (await client.get("/metrics")).text
    assert 'http_server_request_duration_seconds_count{method="other",operation="none",status_class="2xx"}' in text
    answer = await client.get("/metrics", headers={"X-Forwarded-For": "203.0.113.7"})
    assert (answer.status_code, answer.json()["code"]) == (404, "edge.not_found")


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_documentation_needs_no_other_host(client: httpx2.AsyncClient, page: str) -> None:
    answer = await client.get(page)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "http:" not in policy
    assert "https:" not in policy
    assert "script-src 'self';" in policy
    assert "//" not in re.sub(r"<!doctype html>", "", answer.text)
    assert not re.search(r"<script>|onload=|javascript:", answer.text)
    files = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert len(files) >= 3
    for file in files:
        loaded = await client.get(file)
        assert loaded.status_code == 200, file
        assert int(loaded.headers["content-length"]) > 100
        assert loaded.headers["x-content-type-options"] == "nosniff"


def test_shipped_assets_are_the_named_versions() -> None:
    manifest = json.loads((ASSETS / "manifest.json").read_text(encoding="utf-8"))
    assert {entry["package"] for entry in manifest.values()} == {"swagger-ui-dist", "redoc"}
    for name, entry in manifest.items():
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == entry["sha256"], name
    for licence in ("swagger-ui.LICENSE.txt", "redoc.LICENSE.txt"):
        assert (ASSETS / licence).stat().st_size > 1000


async def test_assets_are_compressed_and_kept(client: httpx2.AsyncClient) -> None:
    path = "/docs/assets/swagger-ui.css"
    packed = await client.get(path, headers={"Accept-Encoding": "gzip"})
    plain = await client.get(path, headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content == (ASSETS / "swagger-ui.css").read_bytes()
    assert int(packed.headers["content-length"]) < len(plain.content) / 3
    again = await client.get(path, headers={"If-None-Match": plain.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "name", ["nothing.js", "manifest.json", "swagger-ui.LICENSE.txt", "..%2fapp.py", "%2e%2e/app.py"]
)
async def test_only_assets_are_files(client: httpx2.AsyncClient, name: str) -> None:
    assert (await client.get(f"/docs/assets/{name}")).status_code == 404


async def test_the_document_is_given_as_it_is(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/openapi.json")).json() == DOCUMENT


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "edge.not_found"),
        ("POST", "/api/v1/agentsx", 404, "edge.not_found"),
        ("GET", "/_edge/errors/500", 404, "edge.not_found"),
        ("POST", "/health", 405, "request.method_not_allowed"),
        ("GET", "/api/v1/tickets/t1", 404, "edge.not_built_yet"),
        ("POST", "/api/v1/tickets/approve", 404, "edge.not_built_yet"),
        ("GET", "/api/v1/tickets/list", 502, "edge.service_unavailable"),
        ("PATCH", "/api/v1/tickets/t1", 502, "edge.service_unavailable"),
        ("GET", "/_edge/errors/413", 413, "edge.body_too_large"),
        ("GET", "/_edge/errors/502", 502, "edge.service_unavailable"),
        ("GET", "/_edge/errors/504", 504, "edge.gateway_timeout"),
    ],
)
async def test_refusals(client: httpx2.AsyncClient, method: str, path: str, status: int, code: str) -> None:
    answer = await client.request(method, path, headers={"X-Request-ID": "req-9", "Origin": "http://localhost:3000"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["code"], body["request_id"]) == (status, code, "req-9")
    assert body["detail"]
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert ("retry-after" in answer.headers) == (status in (502, 504))


async def test_preflights_are_answered(client: httpx2.AsyncClient) -> None:
    headers = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    answer = await client.options("/api/v1/tickets/approve", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-credentials"] == "true"


class Answering(asyncio.Protocol):
    """Answers every request with a status, once `heard` is set and after a pause, until the connection is lost."""

    def __init__(self, status: int, delay_s: float, heard: asyncio.Event, sets: bool) -> None:
        self._answer = f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        self._delay_s = delay_s
        self._heard = heard
        self._sets = sets
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if self._sets:
            self._heard.set()
        self._task = asyncio.create_task(self._reply(transport))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _reply(self, transport: asyncio.Transport) -> None:
        await self._heard.wait()
        await asyncio.sleep(self._delay_s)
        transport.write(self._answer)


async def serve(status: int, delay_s: float, heard: asyncio.Event, *, sets: bool = False) -> tuple[asyncio.Server, str]:
    """A server that answers with a status after `heard`, which it sets when it is asked, and its URL."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(status, delay_s, heard, sets), "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_health_asks_every_instance_at_once() -> None:
    # The first two answer only when the last has been asked, too.
    heard = asyncio.Event()
    servers = [await serve(200, 0.0, heard), await serve(503, 0.0, heard), await serve(200, 60.0, heard, sets=True)]
    well, unready, slow = (url for _, url in servers)
    urls = {"identity": [well], "workflow": [well, unready], "agents": [slow], "billing": ["http://127.0.0.1:9"]}
    app = EdgeApp(Settings(env="test", service_urls=urls, health_timeout_s=2.0, health_cache_s=60), not_built=[])
    transport = httpx2.ASGITransport(app=app.asgi())
    async with httpx2.AsyncClient(transport=transport, base_url="http://edge") as client:
        answer = await client.get("/health")
        assert answer.status_code == 200
        assert answer.json() == {
            "status": "degraded",
            "version": "0.1.0",
            "services": {
                "identity": {"status": "healthy", "ready": 1, "instances": 1},
                "workflow": {"status": "degraded", "ready": 1, "instances": 2, "failed": ["not ready"]},
                "agents": {"status": "unhealthy", "ready": 0, "instances": 1, "failed": ["timeout"]},
                "billing": {"status": "unhealthy", "ready": 0, "instances": 1, "failed": ["unreachable"]},
            },
        }
        for server, _ in servers:
            server.close()
        # Within the cache's time nobody is asked again.
        assert (await client.get("/health")).json() == answer.json()


async def test_health_is_healthy_when_everything_is() -> None:
    server, url = await serve(200, 0.0, asyncio.Event(), sets=True)
    app = EdgeApp(Settings(env="test", service_urls=dict.fromkeys(SERVICES, url)), not_built=[])
    transport = httpx2.ASGITransport(app=app.asgi())
    async with httpx2.AsyncClient(transport=transport, base_url="http://edge") as client:
        body = (await client.get("/health")).json()
    server.close()
    assert body["status"] == "healthy"
    assert set(body["services"]) == set(SERVICES)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/a/1", "GET /a/{id}"),
        ("HEAD", "/a/1", "GET /a/{id}"),
        ("GET", "/a/built", None),
        ("GET", "/a/1/2", None),
        ("POST", "/a/1", None),
        ("GET", "/a/1/", None),
        ("GET", "/f/x/y/z", "GET /f/{path}"),
        ("POST", "/t/", "POST /t/"),
        ("POST", "/t", None),
    ],
)
def test_pending_operations_match_like_routes(method: str, path: str, expected: str | None) -> None:
    listed = parse_operations("# a comment\nGET /a/{id}\n\nGET /f/{path}\nPOST /t/\n")
    built = [Operation("GET", "/a/built")]
    found = find(listed, built, method, path)
    assert (None if found is None else str(found)) == expected
