"""The public WebSocket as a client sees it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.e2e.world import World


class Stream:
    """An open socket and the event frames that came over it."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.frames: list[dict[str, Any]] = []
        self.other: list[dict[str, Any]] = []
        self.closed: int | None = None

    def until(self, wanted: Callable[[dict[str, Any]], bool], ceiling_s: float = 30.0) -> dict[str, Any]:
        """Receive until a frame is wanted; returns it."""
        deadline = time.monotonic() + ceiling_s
        while time.monotonic() < deadline:
            for frame in self.receive(1.0):
                if wanted(frame):
                    return frame
        raise AssertionError(f"no such frame within {ceiling_s:g} s; came: {self.names()}")

    def receive(self, for_s: float) -> list[dict[str, Any]]:
        """What comes within this time; ends early after the first frame."""
        deadline = time.monotonic() + for_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                frame = json.loads(self.socket.recv(timeout=left))
            except TimeoutError:
                return []
            except ConnectionClosed as closed:
                self.closed = closed.rcvd.code if closed.rcvd else 1006
                return []
            if "event_type" in frame:
                self.frames.append(frame)
                return [frame]
            self.other.append(frame)
        return []

    def drain(self, quiet_s: float) -> None:
        """Receive until nothing came for this long."""
        while self.receive(quiet_s):
            pass

    def wait_closed(self, ceiling_s: float = 30.0) -> int:
        """The close code."""
        deadline = time.monotonic() + ceiling_s
        while self.closed is None:
            assert time.monotonic() < deadline, f"still open after {ceiling_s:g} s"
            self.receive(0.5)
        return self.closed

    def names(self) -> list[str]:
        return [frame["event_type"] for frame in self.frames]


@contextmanager
def stream(world: World, token: str, **query: str) -> Iterator[Stream]:
    """A WebSocket through the gateway."""
    given = urlencode({"token": token, **query})
    address = f"{world.url.replace('http', 'ws', 1)}/api/v1/ws/events?{given}"
    with connect(address, open_timeout=20, close_timeout=2, max_size=4 * 1024**2, proxy=None) as socket:
        yield Stream(socket)
