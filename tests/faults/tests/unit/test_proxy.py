"""The proxy passes, slows and swallows."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from tests.faults.proxy import Proxy


async def test_it_passes_slows_and_swallows() -> None:
    ended = asyncio.Event()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(line)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        ended.set()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    proxy = Proxy(server.sockets[0].getsockname()[1], delay_s=0.1).start()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)

    async def said() -> float:
        began = time.monotonic()
        writer.write(b"hello\n")
        assert await asyncio.wait_for(reader.readline(), 10) == b"hello\n"
        return time.monotonic() - began

    try:
        await said()
        proxy.set("slow")
        assert await said() >= 0.2
        proxy.set("black")
        writer.write(b"held\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting := asyncio.ensure_future(reader.readline())), 0.3)
        proxy.set("pass")
        assert await asyncio.wait_for(waiting, 10) == b"held\n"
    finally:
        writer.close()
        proxy.stop()
        await asyncio.wait_for(ended.wait(), 10)
        server.close()
        await server.wait_closed()


async def test_a_dead_target_is_a_dead_connection() -> None:
    proxy = Proxy(1).start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionError):
            if not await asyncio.wait_for(reader.read(1), 10):
                raise ConnectionResetError
        writer.close()
    finally:
        proxy.stop()
