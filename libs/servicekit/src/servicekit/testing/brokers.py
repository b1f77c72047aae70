"""NATS and Redis of one worker of the test run."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

from nats.aio.client import Client

from omoios_local.embedded.nats import EmbeddedNats
from omoios_local.embedded.process import EmbeddedPart, exchange, free_port
from omoios_local.embedded.redis import EmbeddedRedis
from servicekit.events import topology
from servicekit.testing.run import TestRun


def worker_name() -> str:
    """Return pytest-xdist's name of this worker, `main` without it."""
    return os.environ.get("PYTEST_XDIST_WORKER", "main")


def start_nats(run: TestRun) -> EmbeddedNats:
    """Start this worker's NATS. Its files are not forced to disk: tests of durability start their own."""
    server = EmbeddedNats(run.directory / f"nats-{worker_name()}", free_port(), sync_always=False)
    _start(run, server)
    return server


def start_redis(run: TestRun) -> EmbeddedRedis:
    """Start this worker's Redis."""
    server = EmbeddedRedis(run.directory / f"redis-{worker_name()}", free_port())
    _start(run, server)
    return server


def stop(run: TestRun, part: EmbeddedPart) -> None:
    """Stop a server of this worker."""
    part.stop()
    run.forget(part.directory.name)


def _start(run: TestRun, part: EmbeddedPart) -> None:
    part.start(timeout_s=30)
    assert part.pid is not None
    run.record(part.directory.name, part.pid)


async def wipe_nats(url: str) -> None:
    """Delete every stream."""
    client = Client()
    await client.connect(url, connect_timeout=5)
    try:
        js = client.jetstream(timeout=5)
        for stream in await js.streams_info():
            if stream.config.name is not None:
                await js.delete_stream(stream.config.name)
    finally:
        await client.close()


async def apply_topology(url: str, plan: topology.Plan) -> None:
    """Make the streams and durables of a plan, with short pauses between the deliveries of what fails."""
    quick = {
        name: replace(
            stream,
            max_bytes=256 * 1024**2,
            durables={item: replace(durable, backoff_s=[0.05]) for item, durable in stream.durables.items()},
        )
        for name, stream in plan.streams.items()
    }
    client = Client()
    await client.connect(url, connect_timeout=5)
    try:
        await topology.apply(client.jetstream(timeout=5), topology.Plan(quick))
    finally:
        await client.close()


def wiped(url: str) -> None:
    """Delete every stream, from synchronous code without a running loop."""
    asyncio.run(wipe_nats(url))


def flush_redis(server: EmbeddedRedis) -> None:
    """Empty a Redis server."""
    answer = exchange(server.port, b"FLUSHALL\r\n", timeout_s=5)
    if not answer.startswith(b"+OK"):
        raise RuntimeError(f"Redis did not empty itself: {answer!r}")
