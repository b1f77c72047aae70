"""Stands for services: ``python standin.py SERVICE:INSTANCE:PORT …`` answers on each port who was asked, and how.

Ends of paths with a meaning: ``/stream`` sends server-sent events, ``/upload`` reports how a body arrived, ``/slow``
answers after ``?seconds``, ``/own-503``, ``/own-502`` and ``/own-429`` are errors of the service itself, ``/cookies``
sets two, ``/busy`` keeps the event loop busy for ``?seconds``,
``/unready`` and ``/ready`` switch the readiness probe, ``/seen`` lists the values of ``?mark`` that came before.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any
from urllib.parse import parse_qs

import uvicorn


class StandIn:
    def __init__(self, service: str, instance: str) -> None:
        self.service = service
        self.instance = instance
        self.ready = True
        self.marks: list[str] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await self.websocket(scope, receive, send)
        elif scope["type"] == "http":
            await self.http(scope, receive, send)

    async def websocket(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        hello = {"service": self.service, "path": scope["path"], "query": scope["query_string"].decode()}
        await send({"type": "websocket.send", "text": json.dumps(hello)})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") == "close":
                await send({"type": "websocket.close", "code": 4401, "reason": "told to"})
                return
            await send({"type": "websocket.send", "text": message["text"]})

    async def http(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        path = scope["path"]
        query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
        end = path.rpartition("/")[2]
        if "mark" in query:
            self.marks.append(query["mark"])
        if path == "/readyz":
            await answer(send, 200 if self.ready else 503, {"status": "ok"})
        elif end in ("ready", "unready"):
            self.ready = end == "ready"
            await answer(send, 200, {"ready": self.ready})
        elif end == "seen":
            await answer(send, 200, {"marks": self.marks})
        elif end == "stream":
            await self.stream(send)
        elif end == "upload":
            await answer(send, 200, await received(receive))
        elif end == "own-503":
            headers = [(b"retry-after", b"7"), (b"content-type", b"application/problem+json")]
            await answer(send, 503, {"detail": "Stripe is away.", "code": "billing.stripe_unavailable"}, headers)
        elif end == "own-502":
            await answer(send, 502, {"error": "the proxied host is away"})
        elif end == "own-429":
            await answer(send, 429, {"code": "identity.login_limited"}, [(b"retry-after", b"37")])
        elif end == "cookies":
            await answer(send, 200, {}, [(b"set-cookie", b"a=1; HttpOnly; Path=/"), (b"set-cookie", b"b=2; Path=/")])
        else:
            if end == "slow":
                await asyncio.sleep(float(query["seconds"]))
            elif end == "busy":
                time.sleep(float(query["seconds"]))  # noqa: ASYNC251 - nothing else is to run meanwhile.
            headers = [[name.decode(), value.decode()] for name, value in scope["headers"]]
            who = {"service": self.service, "instance": self.instance}
            await answer(send, 200, {**who, "method": scope["method"], "path": path, "headers": headers})

    async def stream(self, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number in range(3):
            await send({"type": "http.response.body", "body": f"data: {number}\n\n".encode(), "more_body": True})
            await asyncio.sleep(0.4)
        await send({"type": "http.response.body", "body": b""})


async def received(receive: Any) -> dict[str, Any]:
    """Bytes of a body and the seconds between its first and its last part."""
    first = last = time.monotonic()
    total = 0
    while True:
        message = await receive()
        last = time.monotonic()
        if not total:
            first = last
        total += len(message.get("body", b""))
        if not message.get("more_body"):
            return {"bytes": total, "seconds": last - first}


async def answer(
    send: Any, status: int, body: dict[str, Any], headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    content = json.dumps(body).encode()
    length = (b"content-length", str(len(content)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*(headers or []), length]})
    await send({"type": "http.response.body", "body": content})


async def main() -> None:
    servers = []
    for argument in sys.argv[1:]:
        service, instance, port = argument.split(":")
        app = StandIn(service, instance)
        config = uvicorn.Config(app, host="127.0.0.1", port=int(port), lifespan="off", log_level="error")
        servers.append(uvicorn.Server(config).serve())
    await asyncio.gather(*servers)


if __name__ == "__main__":
    asyncio.run(main())
