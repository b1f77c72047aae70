"""The HTTP listener: uvicorn on uvloop and httptools, started by the host."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Generator

import uvicorn
from starlette.types import ASGIApp

from servicekit.http.connection import Connection, ConnectionsState

BACKLOG = 2048
KEEP_ALIVE_S = 75
"""Longer than the gateway keeps an idle connection (60 s), so that it never sends into one that is being closed."""
WS_MAX_BYTES = 1024 * 1024
WS_MAX_QUEUE = 16
WS_PING_S = 20.0
QUIET_S = 1.0
"""So long without a request means that callers have noticed: the gateway probes every second."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the host decides when to stop."""

    def __init__(self, config: uvicorn.Config, state: ConnectionsState) -> None:
        super().__init__(config)
        self.server_state = state

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Captures nothing."""
        yield


class HttpServer:
    """Serves ``app`` on ``host:port`` (0: any free port; see ``port`` after ``start``)."""

    def __init__(self, app: ASGIApp, host: str, port: int, *, grace_s: float = 10.0) -> None:
        self._app = app
        self._host = host
        self._wanted = port
        self._grace_s = grace_s
        self._state = ConnectionsState()
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Binds and serves. Raises OSError when the port is taken."""
        listener = _bind(self._host, self._wanted)
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            loop="uvloop",
            http=Connection,
            ws="websockets-sansio",
            ws_max_size=WS_MAX_BYTES,
            ws_max_queue=WS_MAX_QUEUE,
            ws_ping_interval=WS_PING_S,
            ws_ping_timeout=WS_PING_S,
            # Frames are small and many; compressing each costs more than its bytes.
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            # The edge reads X-Forwarded-For itself, and only from the gateway.
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            backlog=BACKLOG,
        )
        server = self._server = _Server(config, self._state)
        self._task = asyncio.create_task(server.serve(sockets=[listener]), name="http-server")
        while not server.started:
            if self._task.done():
                self._task.result()
                raise OSError("the HTTP server ended before it was started")
            await asyncio.sleep(0.005)

    async def drain(self, delay_s: float) -> None:
        """Serves on for ``delay_s``, then until no request came for `QUIET_S`, half the grace period longer at most.

        Every answer ends its connection, so that at the end nobody holds one into which the next request would go.
        """
        self._state.drain()
        await asyncio.sleep(delay_s)
        began = time.monotonic()
        await self._state.quiet(QUIET_S, self._grace_s / 2)
        self._grace_s -= time.monotonic() - began

    async def close(self) -> None:
        """Stops accepting, waits for the running requests up to the grace period, then cancels them."""
        if self._server is None or self._task is None:
            return
        self._server.config.timeout_graceful_shutdown = max(1, round(self._grace_s))
        self._server.should_exit = True
        await self._task
        self._server = self._task = None


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it an answer waits up to 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"the HTTP port {host}:{port} cannot be bound: {error.strerror}") from error
    listener.setblocking(False)
    return listener
