"""The guarded client against a real uvicorn, and what only a socket shows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets
from fastapi import APIRouter, WebSocket
from starlette.routing import WebSocketRoute

from omoios_local.embedded.process import free_port
from servicekit import context, telemetry
from servicekit.context import RemoteCallInTransaction
from servicekit.errors import AppError, ErrorSpec, Kind
from servicekit.http.app import create_app
from servicekit.http.client import GuardedClient
from servicekit.http.server import HttpServer

REFUSED = ErrorSpec("kit.not_you", Kind.FORBIDDEN, "Not you.")


class Slow:
    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.finished = 0

    def router(self) -> APIRouter:
        made = APIRouter(prefix="/api/v1/sockets", tags=["sockets"])

        @made.get("/slow")
        async def slow(s: float) -> str:
            self.entered.set()
            await asyncio.sleep(s)
            self.finished += 1
            return "done"

        @made.post("")
        async def take(body: list[int]) -> int:
            return len(body)

        return made


async def echo(websocket: WebSocket) -> None:
    if websocket.query_params.get("who") != "ada":
        raise REFUSED()
    await websocket.accept()
    async for message in websocket.iter_text():
        if message == "boom":
            raise RuntimeError("boom")
        await websocket.send_text(f"{message} {context.request_id.get()}")


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def listening(make_service: Any, slow: Slow) -> Any:
    @asynccontextmanager
    async def opened(grace_s: float = 5.0) -> AsyncIterator[HttpServer]:
        app = create_app(make_service(slow.router(), mounts=[WebSocketRoute("/ws/echo", echo)]))
        server = HttpServer(app, "127.0.0.1", 0, grace_s=grace_s)
        await server.start()
        try:
            yield server
        finally:
            await server.close()

    return opened


ADA = {"Authorization": "Bearer ada"}


async def test_over_a_socket(listening: Any) -> None:
    async with (
        listening() as server,
        GuardedClient("kit", base_url=f"http://127.0.0.1:{server.port}", headers=ADA) as http,
    ):
        good = await http.post("/api/v1/sockets", json=[1, 2])
        unknown = await http.get("/nothing")
    assert good.json() == 2
    assert "server" not in good.headers
    assert unknown.json()["code"] == "request.route_not_found"


async def test_a_chunked_body_is_cut_off_at_the_limit(listening: Any) -> None:
    """The answer comes before the client has sent everything it announced."""
    async with listening() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            b"POST /api/v1/sockets HTTP/1.1\r\nHost: kit\r\nAuthorization: Bearer ada\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(20):
            writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await writer.drain()
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        writer.close()
    assert head.startswith(b"HTTP/1.1 413")


async def test_broken_http_is_refused_without_harm(listening: Any) -> None:
    async with listening() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /api/v1/sockets\x00 HTTP/1.1\r\nHost: kit\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(200), 10)).startswith(b"HTTP/1.1 400")
        writer.close()


async def test_a_running_request_is_finished_before_the_server_closes(listening: Any, slow: Slow) -> None:
    async with GuardedClient("kit", headers=ADA) as http:
        async with listening() as server:
            base = f"http://127.0.0.1:{server.port}"
            running = asyncio.create_task(http.get(f"{base}/api/v1/sockets/slow?s=0.5"))
            await asyncio.wait_for(slow.entered.wait(), 10)
        assert (await running).json() == "done"
        with pytest.raises(AppError) as refused:
            await http.get(f"{base}/livez")
    assert refused.value.kind is Kind.UNAVAILABLE


async def test_a_port_that_is_taken_says_so(listening: Any) -> None:
    async with listening() as server:
        second = HttpServer(lambda *_: None, "127.0.0.1", server.port)  # type: ignore[arg-type,return-value]
        with pytest.raises(OSError, match=f"127.0.0.1:{server.port} cannot be bound"):
            await second.start()


async def test_websockets(listening: Any) -> None:
    async with listening() as server:
        url = f"ws://127.0.0.1:{server.port}/ws/echo"
        async with websockets.connect(url + "?who=ada", additional_headers={"X-Request-ID": "w-1"}) as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello w-1"
            assert socket.response is not None
            assert socket.response.headers["x-request-id"] == "w-1"
            await socket.send("boom")
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await socket.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1011, "service.internal")
        for path in ("?who=eve", "/nowhere"):
            with pytest.raises(websockets.InvalidStatus) as refused:
                await websockets.connect(url + path)
            assert refused.value.response.status_code == 403


async def test_the_client_refuses_inside_a_transaction() -> None:
    async with GuardedClient("github") as http:
        with context.in_transaction(), pytest.raises(RemoteCallInTransaction, match="github"):
            await http.get("http://127.0.0.1:1/")


async def test_the_client_translates_failures(listening: Any) -> None:
    async with GuardedClient("kit", headers=ADA, timeout=0.2) as http:
        with pytest.raises(AppError) as absent:
            await http.get(f"http://127.0.0.1:{free_port()}/")
        async with listening(1.0) as server:
            with pytest.raises(AppError) as late:
                await http.get(f"http://127.0.0.1:{server.port}/api/v1/sockets/slow?s=1")
    assert (absent.value.kind, absent.value.retry_after_s) == (Kind.UNAVAILABLE, 1.0)
    assert (late.value.code, late.value.kind) == ("service.deadline", Kind.DEADLINE)


async def test_a_trace_goes_from_client_to_server(listening: Any) -> None:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from servicekit.settings import ServiceSettings

    exporter = InMemorySpanExporter()
    telemetry.setup_tracing(ServiceSettings(env="test"), "kit", exporter)
    try:
        async with listening() as server, GuardedClient("kit", propagate=True, headers=ADA) as http:
            with telemetry.span("job"):
                await http.post(f"http://127.0.0.1:{server.port}/api/v1/sockets", json=[1])
                await http.get(f"http://127.0.0.1:{server.port}/api/v1/sockets/slow?s=0")
    finally:
        telemetry.shutdown_tracing()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert {"job", "POST kit", "POST /api/v1/sockets", "GET /api/v1/sockets/slow"} <= spans.keys()
    assert len({span.context.trace_id for span in spans.values()}) == 1
    assert spans["POST /api/v1/sockets"].parent.span_id == spans["POST kit"].context.span_id
    assert spans["POST /api/v1/sockets"].attributes["http.response.status_code"] == 200
