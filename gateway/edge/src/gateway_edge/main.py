"""``python -m gateway_edge.main``: runs the edge until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator

import uvicorn

from gateway_edge.app import EdgeApp
from gateway_edge.settings import Settings
from servicekit.logging import configure, get_logger

_log = get_logger(__name__)


class _Server(uvicorn.Server):
    """Leaves the process's signals alone: uvicorn's own handler would close the listener at once."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT: readiness goes off, the gateway notices, then the listener closes."""
    edge = EdgeApp(settings)
    config = uvicorn.Config(
        edge.asgi(),
        host=settings.http_host,
        port=settings.http_port,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(settings.shutdown_grace_s),
    )
    server = _Server(config)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)
    serving = asyncio.create_task(server.serve())
    waiting = asyncio.create_task(stopping.wait())
    _log.info("started", port=settings.http_port)
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    edge.ready = False
    if not serving.done():
        await asyncio.sleep(settings.shutdown_delay_s)
        server.should_exit = True
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    await serving
    _log.info("stopped")


def main() -> None:
    settings = Settings()
    configure(settings, "edge")
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(settings))


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop


if __name__ == "__main__":
    main()
