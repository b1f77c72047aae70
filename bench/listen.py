"""A client of the event stream in a process of its own: how long after its commit does a frame arrive?

`python -m bench.listen` reads a plan (JSON: url, seconds) from standard input, writes `listening` when the stream is
open and the outcome (JSON) when the time is over. The time of an event is the one that its service gave it, just before
the commit; both ends are on one machine, so on one clock.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import datetime
from typing import Any

from websockets.asyncio.client import connect

from bench.load import quantile, say

FRAMES_MAX = 200_000


async def listen(url: str, seconds: float, skip_s: float) -> dict[str, Any]:
    """Frames of the measured time, their number and how late they were."""
    arrived: list[tuple[float, str | bytes]] = []
    async with connect(url, max_queue=4096, compression=None, proxy=None) as socket:
        say("listening")
        try:
            async with asyncio.timeout(seconds + skip_s):
                while len(arrived) < FRAMES_MAX:
                    text = await socket.recv()
                    arrived.append((time.time(), text))
        except TimeoutError:
            pass
    if not arrived:
        return {"frames": 0, "p50_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0}
    begin = arrived[0][0] + skip_s
    late: list[float] = []
    for at, text in arrived:
        payload = json.loads(text).get("payload", {})
        if at >= begin and "sandbox_sequence" in payload:
            late.append(at - datetime.fromisoformat(payload["timestamp"]).timestamp())
    late.sort()
    return {
        "frames": len(late),
        "p50_ms": quantile(late, 0.5) * 1000,
        "p99_ms": quantile(late, 0.99) * 1000,
        "max_ms": (late[-1] if late else 0.0) * 1000,
    }


if __name__ == "__main__":
    given = json.loads(sys.stdin.read())
    say(json.dumps(asyncio.run(listen(given["url"], given["seconds"], given["skip_s"]))))
