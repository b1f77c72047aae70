"""uvicorn's connections, made to end without cutting off an answer or a request."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from servicekit.http.admission import PROBES

LINGER_S = 2.0
LINGER_BYTES = 16 * 1024 * 1024
"""How long, and how much, a client may still send after its answer; more than the gateway lets pass (10 MB)."""


class ConnectionsState(ServerState):
    """What all connections of one server share."""

    def __init__(self) -> None:
        super().__init__()
        self.draining = False
        self.last_request = 0.0
        """When the newest request that is no probe came since it drains, in seconds of `time.monotonic`."""

    def drain(self) -> None:
        """From now on every answer is its connection's last."""
        self.draining = True
        self.last_request = time.monotonic()

    async def quiet(self, for_s: float, at_most_s: float) -> None:
        """Waits until no request came for so long: whoever sends them has noticed that this process leaves."""
        end = time.monotonic() + at_most_s
        while True:
            now = time.monotonic()
            until = min(end, self.last_request + for_s)
            if now >= until:
                return
            await asyncio.sleep(until - now)


class Connection(HttpToolsProtocol):
    """One connection. While the server drains every answer is its last, so that no request meets a close."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", _Lingering(cast("asyncio.Transport", transport), self)))

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        state = cast("ConnectionsState", self.server_state)
        cycle: RequestResponseCycle | None = self.cycle
        if state.draining and cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False
            if self.scope["path"] not in PROBES:
                state.last_request = time.monotonic()


class _Lingering:
    """A transport that closes like nginx (`lingering_close`) where the request was answered before it was read.

    The kernel answers bytes that arrive at a closed socket with a reset, and a client that meets it while it writes
    gives up before it has read the answer. So the answer goes out, then our side of the connection is closed, and what
    the client still sends is read and thrown away, within bounds.
    """

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self._transport = transport
        self._connection = connection
        self._lingers = False
        # Asked for at every answer.
        self.write = transport.write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._lingers or self._transport.is_closing()

    def close(self) -> None:
        if self._lingers or self._transport.is_closing():
            return
        cycle: RequestResponseCycle | None = self._connection.cycle
        if cycle is None or not cycle.response_complete or not cycle.more_body or cycle.disconnected:
            self._transport.close()
            return
        self._lingers = True
        self._transport.set_protocol(_Discard(self._transport, self._connection))
        self._transport.write_eof()
        self._transport.resume_reading()


class _Discard(asyncio.Protocol):
    """Reads on for `LINGER_BYTES` and `LINGER_S`, then closes; the client's own close comes first as a rule."""

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self._transport = transport
        self._connection = connection
        self._left = LINGER_BYTES
        self._end = connection.loop.call_later(LINGER_S, transport.close)

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._end.cancel()
        self._connection.connection_lost(error)
