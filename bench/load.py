"""The load generator: a process of its own that sends HTTP requests over loopback and measures the answers.

`python -m bench.load` reads a plan (JSON, one line) from standard input and writes three lines: `begin` before the
measured requests, which waits for a line in answer, `end` after the last of them was answered, then the outcome (JSON).
Nothing is under way while the parent looks at processor time: what was used in between is that of the counted requests,
however busy the machine is.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import uvloop

NUMBER = b"@NUMBER@"
EVENTS = b"@EVENTS@"
ANSWER_S = 30.0
LONGEST_S = 10.0
_CONTENT = {"tool": "Edit", "file": "src/module_042.py", "added": 12, "removed": 3, "summary": "Handle the empty page"}


@dataclass
class Request:
    """One kind of request. In `body`, `@NUMBER@` becomes a number that is used once, `@EVENTS@` fresh events."""

    method: str
    path: str
    headers: dict[str, str]
    body: str = ""


@dataclass
class Plan:
    """What to send. Connection i sends `requests[i % len]`, one after the other; with `rate` (requests/s, all
    connections together) at fixed times whatever the answers do, else as fast as they come.
    """

    port: int
    requests: list[Request]
    connections: int
    seconds: float
    warm_s: float = 0.3
    rate: float = 0.0
    events: int = 1
    least: int = 0
    """Answers for which it goes on for longer, up to `LONGEST_S`."""
    seed: int = field(default_factory=lambda: time.time_ns())

    @classmethod
    def read(cls, text: str) -> Plan:
        document = json.loads(text)
        document["requests"] = [Request(**one) for one in document["requests"]]
        return cls(**document)

    def text(self) -> str:
        return json.dumps(asdict(self))


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[int] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(0)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found or self._answer is None:
            return
        lower = head.lower()
        at = lower.find(b"content-length:")
        if at >= 0:
            end = lower.find(b"\r\n", at)
            if len(rest) < int(lower[at + 15 : end if end >= 0 else None]):
                return
        elif b"transfer-encoding: chunked" in lower and not rest.endswith(b"0\r\n\r\n"):
            return
        self._buffer = b""
        self._answer.set_result(int(head[9:12]))

    def send(self, data: bytes) -> asyncio.Future[int]:
        """The status of the answer; 0 for a lost connection."""
        assert self.transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        return self._answer


class Sender:
    """Makes the bytes of one connection's requests."""

    def __init__(self, request: Request, number: int, plan: Plan, numbers: itertools.count[int]) -> None:
        self._events = plan.events
        self._connection = number & 0xFFF
        self._numbers = numbers
        self._body = request.body.encode()
        lines = [f"{request.method} {request.path} HTTP/1.1", f"Host: 127.0.0.1:{plan.port}"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        if self._body:
            lines.append("Content-Type: application/json")
        self._head = "\r\n".join(lines).encode()
        self._fixed = None if NUMBER in self._body or EVENTS in self._body else self._whole(self._body)

    def next(self) -> bytes:
        """The next request."""
        if self._fixed is not None:
            return self._fixed
        body = self._body
        if NUMBER in body:
            body = body.replace(NUMBER, str(next(self._numbers)).encode())
        if EVENTS in body:
            body = body.replace(EVENTS, ",".join(self._event() for _ in range(self._events)).encode())
        return self._whole(body)

    def _event(self) -> str:
        now = time.time()
        milliseconds, number = int(now * 1000), next(self._numbers) & 0xFFFFFFFFFFFF
        # A UUIDv7, greater than all that this connection made before it.
        identifier = f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}-7{self._connection:03x}-8000-{number:012x}"
        content = json.dumps({**_CONTENT, "sent": now})
        return f'{{"event_id":"{identifier}","event_type":"agent.tool_use","event_data":{content}}}'

    def _whole(self, body: bytes) -> bytes:
        length = f"\r\nContent-Length: {len(body)}".encode() if body else b""
        return self._head + length + b"\r\n\r\n" + body


class Run:
    """One run of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.latencies: list[float] = []
        self.statuses: Counter[int] = Counter()

    async def run(self, looked: Callable[[], object] = lambda: None) -> dict[str, Any]:
        """Send until the time is over; the outcome. `looked` returns, in a thread, when the parent is ready."""
        plan = self.plan
        loop = asyncio.get_running_loop()
        connections: list[Connection] = []
        for _ in range(plan.connections):
            _, protocol = await loop.create_connection(Connection, "127.0.0.1", plan.port)
            connections.append(protocol)
        numbers = itertools.count(plan.seed % (1 << 46))
        senders = [
            Sender(plan.requests[number % len(plan.requests)], number, plan, numbers)
            for number in range(plan.connections)
        ]
        await self._send(connections, senders, plan.warm_s)
        self.latencies.clear()
        self.statuses.clear()
        say("begin")
        await loop.run_in_executor(None, looked)
        seconds = await self._send(connections, senders, plan.seconds, plan.least)
        say("end")
        for connection in connections:
            if connection.transport is not None:
                connection.transport.close()
        ordered = sorted(self.latencies)
        return {
            "count": len(ordered),
            "seconds": seconds,
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "p50_ms": quantile(ordered, 0.50) * 1000,
            "p99_ms": quantile(ordered, 0.99) * 1000,
        }

    async def _send(
        self, connections: Sequence[Connection], senders: Sequence[Sender], seconds: float, least: int = 0
    ) -> float:
        """Send on all connections and wait for the last answer; the seconds that it took."""
        began = time.perf_counter()
        tasks = [
            asyncio.create_task(self._keep_sending(connection, sender, number, began, seconds, least))
            for number, (connection, sender) in enumerate(zip(connections, senders, strict=True))
        ]
        await asyncio.wait(tasks, timeout=seconds + LONGEST_S + ANSWER_S)
        for task in tasks:
            if task.done():
                # A mistake of the generator must not pass as a slow server.
                task.result()
        return time.perf_counter() - began

    async def _keep_sending(
        self, connection: Connection, sender: Sender, number: int, began: float, seconds: float, least: int
    ) -> None:
        rate = self.plan.rate / self.plan.connections
        due = began + (number + random.random()) / max(self.plan.rate, 1.0)
        while connection.transport is not None:
            now = time.perf_counter()
            if now >= began + seconds and (len(self.latencies) >= least or now >= began + LONGEST_S):
                return
            if rate:
                if due > now:
                    await asyncio.sleep(due - now)
                now, due = due, due + 1.0 / rate
            status = await connection.send(sender.next())
            self.latencies.append(time.perf_counter() - now)
            self.statuses[status] += 1


def quantile(ordered: list[float], share: float) -> float:
    """The value below which `share` of an ordered list lies; 0 for an empty one."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def say(line: str) -> None:
    """One line to the parent, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        say(json.dumps(runner.run(Run(Plan.read(sys.stdin.readline())).run(sys.stdin.readline))))
