"""How connections end: no answer is cut off, no request meets a close."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from servicekit.http import connection, server
from servicekit.http.server import HttpServer

HEAD = b"POST %s HTTP/1.1\r\nHost: kit\r\nContent-Length: 4000000\r\n\r\n"


async def unread(scope: Any, _receive: Any, send: Any) -> None:
    """Answers without reading the body; below ``/last`` it ends the connection, too."""
    headers = [(b"content-length", b"2"), *([(b"connection", b"close")] if scope["path"] == "/last" else [])]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": b"no"})


@asynccontextmanager
async def listening(grace_s: float = 5.0) -> AsyncIterator[HttpServer]:
    made = HttpServer(unread, "127.0.0.1", 0, grace_s=grace_s)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def opened(port: int, first: bytes) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(first)
        await writer.drain()
        yield reader, writer
    finally:
        writer.close()


async def test_a_client_that_is_still_writing_gets_the_answer() -> None:
    async with listening() as made, opened(made.port, HEAD % b"/last" + b"x" * 1000) as (reader, writer):
        # The server has answered and closed its side by now; without reading on it would meet these with a reset.
        await asyncio.sleep(0.1)
        for _ in range(8):
            writer.write(b"x" * 250_000)
            await writer.drain()
            await asyncio.sleep(0.01)
        answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 413")
    assert answer.endswith(b"\r\n\r\nno")


async def test_a_connection_lingers_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LINGER_S", 0.2)
    async with listening() as made, opened(made.port, HEAD % b"/last" + b"x") as (reader, writer):
        await asyncio.wait_for(reader.read(), 10)
        async with asyncio.timeout(10):
            with pytest.raises(ConnectionError):
                while True:
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.02)


async def test_a_connection_lingers_for_so_many_bytes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LINGER_S", 60.0)
    monkeypatch.setattr(connection, "LINGER_BYTES", 1_000_000)
    async with listening() as made, opened(made.port, HEAD % b"/last" + b"x") as (reader, writer):
        await asyncio.wait_for(reader.read(), 10)
        async with asyncio.timeout(10):
            with pytest.raises(ConnectionError):
                while True:
                    writer.write(b"x" * 100_000)
                    await writer.drain()


async def test_the_end_of_the_server_lets_a_writing_client_have_its_answer() -> None:
    async with listening() as made:
        async with opened(made.port, HEAD % b"/kept" + b"x") as (reader, writer):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            assert b"connection: close" not in head
            closing = asyncio.create_task(made.close())
            await asyncio.sleep(0.2)
            writer.write(b"x" * 1_000_000)
            await writer.drain()
            assert await asyncio.wait_for(reader.read(), 10) == b"no"
        await closing


async def test_a_draining_server_serves_until_nobody_asks_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "QUIET_S", 0.4)
    async with listening() as made, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{made.port}") as http:
        assert "connection" not in (await http.post("/", content=b"x")).headers
        draining = asyncio.create_task(made.drain(0.0))
        for _ in range(8):
            await asyncio.sleep(0.1)
            answer = await http.post("/", content=b"x")
            assert (answer.status_code, answer.headers["connection"]) == (413, "close")
        assert not draining.done()
        # Probes go on for as long as the process lives.
        async with asyncio.timeout(10):
            while not draining.done():
                await http.get("/readyz")
                await asyncio.sleep(0.05)
        await draining


async def test_a_draining_server_does_not_wait_for_ever() -> None:
    async with listening(grace_s=0.6) as made, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{made.port}") as http:
        draining = asyncio.create_task(made.drain(0.0))
        async with asyncio.timeout(10):
            while not draining.done():
                await http.post("/", content=b"x")
                await asyncio.sleep(0.02)
        await draining
