"""What everybody else feels while somebody guesses passwords."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.figures import Figure, at_most
from bench.http import Outcome, get, load
from bench.load import Plan, Request
from bench.stack import Stack, module

GUESSES_PER_S = 200.0
READS_PER_S = 50.0
SECONDS = 4.0


def flood(stack: Stack) -> Iterator[Figure]:
    """Reads of three services through the gateway, on a quiet stack and beside 200 wrong passwords a second."""
    reads = {
        "profile read": get("/auth/me", stack.small),
        "ticket list": get("/tickets?limit=20", stack.small),
        "agent list": get("/agents?limit=20", stack.small),
    }
    quiet = {name: _read(stack, request) for name, request in reads.items()}
    with _guesses(stack, len(reads) * (SECONDS + 2)) as seen:
        flooded = {name: _read(stack, request) for name, request in reads.items()}
    statuses = seen()
    if set(statuses) - {"401", "429", "503"}:
        raise RuntimeError(f"guesses were answered {statuses}")
    note = ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items()))
    group = f"beside {GUESSES_PER_S:.0f} wrong passwords a second, through the gateway"
    yield Figure(group, "guesses answered", sum(statuses.values()), "guesses", None, note)
    for name, before in quiet.items():
        during = flooded[name]
        note = f"p50 {before.p50_ms:.1f} → {during.p50_ms:.1f} ms, p99 of the quiet stack {before.p99_ms:.1f} ms"
        note += f", {during.refused} × 503"
        yield Figure(group, f"{name}, p99", during.p99_ms, "ms", at_most(100), note)


def _read(stack: Stack, request: Request) -> Outcome:
    return load(stack.watch(), Plan(stack.gateway_port, [request], 8, SECONDS, rate=READS_PER_S), shedding=True)


@contextmanager
def _guesses(stack: Stack, seconds: float) -> Iterator[Callable[[], dict[str, int]]]:
    """Another load generator at work; what it gives tells status → how many once the block is over."""
    body = json.dumps({"email": "flood-@NUMBER@@example.com", "password": "Wrong-password-1!"})
    request = Request("POST", "/api/v1/auth/login", {}, body)
    process = module("bench.load")
    assert process.stdin is not None
    assert process.stdout is not None
    # The end of its input lets it go on at once: nobody looks at processor time here.
    process.stdin.write(Plan(stack.gateway_port, [request], 128, seconds, rate=GUESSES_PER_S).text())
    process.stdin.close()
    if (line := process.stdout.readline().strip()) != "begin":
        raise RuntimeError(f"the load generator said {line!r}")
    lines: list[str] = []

    def seen() -> dict[str, int]:
        return dict(json.loads(lines[-1])["statuses"])

    try:
        yield seen
        process.stdout.readline()
        lines.append(process.stdout.readline())
        process.wait(60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
