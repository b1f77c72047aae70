"""Live events of a project from the public WebSocket, through the gateway."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

Frame = Mapping[str, Any]
RECEIVE_S = 1.0


class LiveEvents:
    """Listens in a thread, reconnecting from the last sequence that it saw. Use as a context manager."""

    def __init__(self, url: str, token: Callable[[], str], project_id: str, show: Callable[[Frame], None]) -> None:
        self._url = url.replace("http", "ws", 1) + "/api/v1/ws/events"
        self._token = token
        self._project_id = project_id
        self._show = show
        self._stop = threading.Event()
        self._connected = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="live-events", daemon=True)
        self._after: int | None = None
        self.counts: Counter[str] = Counter()
        self.kept: list[Frame] = []
        """Frames about money: few, and what the report is made from."""
        self.connections = 0
        self.last_error = ""

    def __enter__(self) -> LiveEvents:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    @property
    def total(self) -> int:
        return self.counts.total()

    def wait_connected(self, timeout_s: float) -> bool:
        """Whether the socket was opened in time; what happens from then on is seen."""
        return self._connected.wait(timeout_s)

    def _listen(self) -> None:
        pause_s = 0.2
        while not self._stop.is_set():
            query = {"token": self._token(), "entity_ids": self._project_id}
            if self._after is not None:
                query["after"] = str(self._after)
            try:
                with connect(f"{self._url}?{urlencode(query)}", open_timeout=10, max_size=4 * 1024**2) as socket:
                    self.connections += 1
                    self._connected.set()
                    pause_s = 0.2
                    self._receive(socket)
            except (WebSocketException, OSError, TimeoutError) as error:
                self.last_error = f"{type(error).__name__}: {error}"
            if not self._stop.is_set():
                time.sleep(pause_s)
                pause_s = min(pause_s * 2, 5.0)

    def _receive(self, socket: ClientConnection) -> None:
        while not self._stop.is_set():
            try:
                text = socket.recv(timeout=RECEIVE_S)
            except TimeoutError:
                continue
            frame = json.loads(text)
            if "error" in frame:
                self.last_error = str(frame["error"])
            if "event_type" not in frame:
                continue
            if isinstance(frame.get("sequence"), int):
                self._after = frame["sequence"]
            if str(frame["event_type"]).startswith("billing."):
                self.kept.append(frame)
            self.counts[frame["event_type"]] += 1
            self._show(frame)
