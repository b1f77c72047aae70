"""`make up` ends when the gateway reaches what is ready, or says what it does not reach."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from omoios_local.client import await_gateway
from omoios_local.control import ControlError
from omoios_local.embedded.process import free_port

READY = {"gateway", "postgres", "identity", "vcs"}


class Answers(BaseHTTPRequestHandler):
    """502 for a service that is not reached yet, 401 for one that is."""

    asked: Counter[str] = Counter()
    absent: dict[str, int] = {}

    def do_GET(self) -> None:
        Answers.asked[self.path] += 1
        absent = Answers.asked[self.path] <= Answers.absent.get(self.path, 0)
        self.send_response(502 if absent else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    Answers.asked, Answers.absent = Counter(), {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_it_asks_until_every_ready_service_answers(address: str) -> None:
    Answers.absent = {"/api/v1/auth/me": 3}
    await_gateway(address, READY)
    assert Answers.asked == {"/api/v1/auth/me": 4, "/api/v1/commits/none": 1}


def test_what_is_not_reached_is_told_by_name(address: str) -> None:
    Answers.absent = {"/api/v1/commits/none": 10_000}
    began = time.monotonic()
    with pytest.raises(ControlError, match=r"not reached through the gateway within 0.3 s: vcs; "):
        await_gateway(address, READY, 0.3)
    assert time.monotonic() - began >= 0.3


def test_a_gateway_that_answers_nothing_reaches_nobody() -> None:
    with pytest.raises(ControlError, match="identity, vcs"):
        await_gateway(f"http://127.0.0.1:{free_port()}", READY, 0.1)
