"""What counts as running, what is refused beyond the limit, and what is let in all the same."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect

from servicekit import telemetry
from servicekit.auth.access import PUBLIC
from servicekit.http.admission import PROBES, Admission, waiting
from servicekit.http.app import create_app
from servicekit.http.server import HttpServer
from servicekit.settings import ServiceSettings

LIMIT = 2


class Door:
    """Endpoints that stay where they are until `open` is set; `inside` counts who is there."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.inside = 0
        self._entered = asyncio.Condition()
        self.read = 0

    async def pass_through(self) -> None:
        async with self._entered:
            self.inside += 1
            self._entered.notify_all()
        await self.open.wait()

    async def occupied(self, number: int) -> None:
        async with asyncio.timeout(10), self._entered:
            await self._entered.wait_for(lambda: self.inside >= number)

    def router(self) -> APIRouter:
        made = APIRouter(prefix="/api/v1/door", tags=["door"])

        @made.get("/quick")
        async def quick() -> str:
            return "done"

        @made.get("/busy")
        async def busy() -> str:
            await self.pass_through()
            return "done"

        @made.get("/poll")
        async def poll() -> str:
            with waiting():
                await self.pass_through()
            return "done"

        @made.get("/stream")
        async def stream() -> StreamingResponse:
            async def events() -> AsyncIterator[str]:
                yield "data: 1\n\n"
                await self.pass_through()
                yield "data: 2\n\n"

            return StreamingResponse(events(), media_type="text/event-stream")

        @made.post("/body")
        async def body(said: dict[str, int]) -> int:
            self.read += 1
            await self.pass_through()
            return said["number"]

        return made

    def operations(self) -> dict[str, Any]:
        return {f"door.{name}": PUBLIC for name in ("quick", "busy", "poll", "stream", "body")}


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def settings() -> ServiceSettings:
    return ServiceSettings(env="test", max_requests=LIMIT, cors_origins=["http://client.test"])


async def test_the_limit_is_answered_at_once_and_probes_are_let_in(
    serve: Any, door: Door, settings: Any, assert_problem: Any
) -> None:
    shed = telemetry.counter("http_server_requests_shed_total", "")
    before = shed._value.get()
    async with serve(door.router(), operations=door.operations(), settings=settings) as http:
        running = [asyncio.create_task(http.get("/api/v1/door/busy")) for _ in range(LIMIT)]
        await door.occupied(LIMIT)
        refused = await http.get("/api/v1/door/quick", headers={"Origin": "http://client.test"})
        assert_problem(refused, 503, "service.overloaded")
        assert refused.headers["retry-after"] == "1"
        # A browser can read it, too.
        assert refused.headers["access-control-allow-origin"] == "http://client.test"
        assert {(await http.get(path)).status_code for path in PROBES} <= {200, 503}
        assert (await http.get("/livez")).status_code == 200
        assert (await http.get("/metrics")).status_code == 200
        door.open.set()
        assert [answer.json() for answer in await asyncio.gather(*running)] == ["done"] * LIMIT
        assert (await http.get("/api/v1/door/quick")).status_code == 200
    assert shed._value.get() == before + 1


@pytest.mark.parametrize("path", ["poll", "stream"])
async def test_who_waits_keeps_nobody_out(serve: Any, door: Door, path: str, settings: Any) -> None:
    async with serve(door.router(), operations=door.operations(), settings=settings) as http:
        waiters = []
        for number in range(1, 5 * LIMIT + 1):
            waiters.append(asyncio.create_task(http.get(f"/api/v1/door/{path}")))
            await door.occupied(number)
        assert (await http.get("/api/v1/door/quick")).status_code == 200
        door.open.set()
        assert {answer.status_code for answer in await asyncio.gather(*waiters)} == {200}
        assert (await http.get("/api/v1/door/quick")).status_code == 200


class Body:
    """A body whose second half comes when it is let go; `awaited` once the first was read."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.awaited = asyncio.Event()
        self.let_go = asyncio.Event()

    async def halves(self) -> AsyncIterator[bytes]:
        yield b'{"number": '
        self.awaited.set()
        await self.let_go.wait()
        yield b"%d}" % self.number

    async def late(self) -> AsyncIterator[bytes]:
        self.awaited.set()
        await self.let_go.wait()
        yield b'{"number": 1}'


HEADERS = {"Content-Type": "application/json"}


async def test_a_body_on_its_way_keeps_nobody_out(serve: Any, door: Door, settings: Any) -> None:
    door.open.set()
    bodies = [Body(number) for number in range(5 * LIMIT)]
    async with serve(door.router(), operations=door.operations(), settings=settings) as http:
        posts = [
            asyncio.create_task(http.post("/api/v1/door/body", content=body.halves(), headers=HEADERS))
            for body in bodies
        ]
        await asyncio.gather(*(body.awaited.wait() for body in bodies))
        assert (await http.get("/api/v1/door/quick")).status_code == 200
        for body in bodies:
            body.let_go.set()
        assert [answer.json() for answer in await asyncio.gather(*posts)] == list(range(5 * LIMIT))


async def test_a_body_that_comes_late_finds_the_places_taken(
    serve: Any, door: Door, settings: Any, assert_problem: Any
) -> None:
    body = Body(1)
    shed = telemetry.counter("http_server_requests_shed_total", "")
    before = shed._value.get()
    async with serve(door.router(), operations=door.operations(), settings=settings) as http:
        one = asyncio.create_task(http.post("/api/v1/door/body", content=body.late(), headers=HEADERS))
        await body.awaited.wait()
        running = [asyncio.create_task(http.get("/api/v1/door/busy")) for _ in range(LIMIT)]
        await door.occupied(LIMIT)
        body.let_go.set()
        assert_problem(await one, 503, "service.overloaded")
        assert door.read == 0
        assert shed._value.get() == before + 1
        door.open.set()
        await asyncio.gather(*running)
        assert (await http.get("/api/v1/door/quick")).status_code == 200


async def test_web_sockets_do_not_count(make_service: Any, door: Door, settings: Any) -> None:
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(text)

    service = make_service(
        door.router(), operations=door.operations(), settings=settings, mounts=[WebSocketRoute("/ws", echo)]
    )
    server = HttpServer(create_app(service), "127.0.0.1", 0)
    await server.start()
    try:
        async with contextlib.AsyncExitStack() as opened:
            url = f"ws://127.0.0.1:{server.port}/ws"
            sockets = [await opened.enter_async_context(connect(url, proxy=None)) for _ in range(3 * LIMIT)]
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as http:
                assert (await http.get("/api/v1/door/quick")).status_code == 200
            for socket in sockets:
                await socket.send("here")
                assert await socket.recv() == "here"
    finally:
        await server.close()


def test_places_are_given_back_once_whatever_the_order() -> None:
    admission = Admission(1)
    place = admission.enter()
    assert place is not None
    assert admission.enter() is None
    # Two parts of one request wait side by side.
    place.leave()
    place.leave()
    assert admission.running == 0
    place.come_back()
    assert admission.running == 0
    place.come_back()
    assert admission.running == 1
    # Its answer began while it waited once more, and it ends twice.
    place.leave()
    place.end()
    place.end()
    place.come_back()
    assert admission.running == 0
    assert admission.enter() is not None
