"""Probes and metrics: ``/livez``, ``/readyz``, ``/health``, ``/metrics``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from servicekit import telemetry
from servicekit.http.edge import Edge
from servicekit.ports import DatabasePart
from servicekit.settings import ServiceSettings

READY_TIMEOUT_S = 2.0


class Readiness:
    """Whether this process wants traffic; the host turns it on after the start and off before the stop."""

    def __init__(self, database: DatabasePart | None = None) -> None:
        self.serving = False
        self._database = database
        self.checks: dict[str, Callable[[], bool]] = {}

    async def failures(self) -> list[str]:
        """What is missing; empty when ready. Only what this process itself needs: never another service."""
        failed = [] if self.serving else ["serving"]
        failed += [name for name, check in self.checks.items() if not check()]
        if self._database is not None:
            try:
                async with asyncio.timeout(READY_TIMEOUT_S):
                    await self._database.ping()
            except Exception as error:
                failed.append(f"database ({type(error).__name__})")
        return failed


def routes(service: str, readiness: Readiness) -> list[Route]:
    """The probe routes of a process."""

    async def livez(_request: Request) -> Response:
        return _json({"status": "ok"})

    async def readyz(_request: Request) -> Response:
        failed = await readiness.failures()
        if failed:
            return _json({"status": "unavailable", "failed": failed}, 503, {"Retry-After": "1"})
        return _json({"status": "ok"})

    async def health(_request: Request) -> Response:
        failed = await readiness.failures()
        body = {"status": "unhealthy" if failed else "healthy", "service": service}
        return _json(body | ({"failed": failed} if failed else {}), 503 if failed else 200)

    async def metrics(_request: Request) -> Response:
        return Response(telemetry.exposition(), headers={"Content-Type": telemetry.METRICS_CONTENT_TYPE})

    handlers = {"/livez": livez, "/readyz": readyz, "/health": health, "/metrics": metrics}
    return [Route(path, handler, include_in_schema=False) for path, handler in handlers.items()]


def _json(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        orjson.dumps(body),
        status_code=status,
        media_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def create_probe_app(service: str, settings: ServiceSettings, readiness: Readiness) -> ASGIApp:
    """An application of probes and metrics only: of a worker."""
    return Edge(Router(routes(service, readiness)), settings)
