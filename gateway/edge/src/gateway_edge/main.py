"""``python -m gateway_edge.main``: runs the edge until it is told to stop."""

from __future__ import annotations

import asyncio
import signal

import uvloop

from gateway_edge.app import EdgeApp
from gateway_edge.settings import Settings
from servicekit.http.server import HttpServer
from servicekit.logging import configure, get_logger

_log = get_logger(__name__)


async def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT: readiness goes off, the gateway notices, then the listener closes."""
    edge = EdgeApp(settings)
    server = HttpServer(edge.asgi(), settings.http_host, settings.http_port, grace_s=settings.shutdown_grace_s)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)
    await server.start()
    _log.info("started", port=server.port)
    await stopping.wait()
    edge.ready = False
    if settings.shutdown_delay_s:
        await server.drain(settings.shutdown_delay_s)
    await server.close()
    await edge.close()
    _log.info("stopped")


def main() -> None:
    settings = Settings()
    configure(settings, "edge")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))


if __name__ == "__main__":
    main()
