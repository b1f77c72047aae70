"""A TCP proxy on loopback that can be made slow or black while connections go through it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Literal

Mode = Literal["pass", "slow", "black"]
CHUNK = 65_536


class Proxy:
    """Forwards `port` to `target` (both on 127.0.0.1) from a thread of its own.

    `slow` holds every chunk back by `delay_s` in each direction. `black` forwards nothing: a connection stays open, or
    is accepted, and hears nothing, as behind a firewall that drops packets; what waits goes on when it passes again.
    """

    def __init__(self, target: int, delay_s: float = 0.05) -> None:
        self.target = target
        self.delay_s = delay_s
        self.port = 0
        self.connections = 0
        self._mode: Mode = "pass"
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{target}", daemon=True)
        self._server: asyncio.Server | None = None

    def start(self) -> Proxy:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(10)
        return self

    def set(self, mode: Mode) -> None:
        """Change how it behaves, for open connections too."""

        def change() -> None:
            self._mode = mode
            if mode == "black":
                self._open.clear()
            else:
                self._open.set()

        self._loop.call_soon_threadsafe(change)

    def stop(self) -> None:
        async def end() -> None:
            if self._server is not None:
                self._server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            # Aborted transports let go of their sockets in the next turn.
            await asyncio.sleep(0.05)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self) -> None:
        self._open.set()
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        ends = [writer]
        try:
            await self._open.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            ends.append(far_writer)
            await asyncio.gather(self._forward(reader, far_writer), self._forward(far_reader, writer))
        except (OSError, asyncio.CancelledError):
            for end in ends:
                end.transport.abort()
        finally:
            self.connections -= 1

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while chunk := await source.read(CHUNK):
                if self._mode == "slow":
                    await asyncio.sleep(self.delay_s)
                await self._open.wait()
                sink.write(chunk)
                await sink.drain()
        except OSError:
            pass
        finally:
            with contextlib.suppress(OSError):
                sink.close()
