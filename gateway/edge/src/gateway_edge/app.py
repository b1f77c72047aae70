"""The edge process: pages of the whole system, and the answer where no service has one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway_edge import __version__, openapi, pages, pending
from gateway_edge.errors import (
    BODY_TOO_LARGE,
    GATEWAY_TIMEOUT,
    NOT_BUILT_YET,
    NOT_FOUND,
    RATE_LIMITED,
    SERVICE_UNAVAILABLE,
)
from gateway_edge.health import SystemHealth
from gateway_edge.layout import OPENAPI
from gateway_edge.pending import Operation
from gateway_edge.routes import EDGE, Routes, load
from gateway_edge.settings import Settings
from servicekit import context, telemetry
from servicekit.errors import AppError
from servicekit.http.edge import Edge
from servicekit.http.problems import render

ERROR_PAGES = {413: BODY_TOO_LARGE, 502: SERVICE_UNAVAILABLE, 504: GATEWAY_TIMEOUT}
_ENCODED_SLASH = re.compile("%2F", re.IGNORECASE)


class EdgeApp:
    """The edge's pages and its fallback.

    ``ready`` says whether this process wants traffic; ``main`` turns it off before the listener closes.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        routes: Routes | None = None,
        not_built: Sequence[Operation] | None = None,
        document: bytes | None = None,
    ) -> None:
        self._settings = settings
        self._routes = routes or load()
        self._not_built = pending.read(settings.pending_file) if not_built is None else list(not_built)
        text = document if document is not None else OPENAPI.read_bytes() if OPENAPI.exists() else b"{}"
        self._document = pages.Content.of(text, "application/json")
        self._built = list(openapi.operations_of(orjson.loads(text)))
        self._health = SystemHealth(
            settings.service_urls, __version__, settings.health_timeout_s, settings.health_cache_s
        )
        self.ready = True

    def asgi(self) -> ASGIApp:
        """The application with request ids, security headers, CORS and problems around it."""
        router = Router(
            routes=[
                Route("/", self.root, methods=["GET"]),
                Route("/health", self.health, methods=["GET"]),
                Route("/livez", self.livez, methods=["GET"]),
                Route("/readyz", self.readyz, methods=["GET"]),
                Route("/metrics", self.metrics, methods=["GET"]),
                Route("/openapi.json", self.openapi, methods=["GET"]),
                Route("/docs", pages.swagger, methods=["GET"]),
                Route("/redoc", pages.redoc, methods=["GET"]),
                Route("/docs/assets/{name}", pages.asset, methods=["GET"]),
                Route("/_edge/errors/{status:int}", self.error_page, methods=["GET"]),
                Route("/_edge/limited/{seconds:int}", self.limited_page, methods=["GET"]),
            ],
            default=self.fallback,
            redirect_slashes=False,
        )

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            # With an application in its scope the router raises for a wrong method instead of answering plain text.
            scope["app"] = self
            await router(scope, receive, send)

        return Edge(application, self._settings)

    async def close(self) -> None:
        """Closes the connections to the services."""
        await self._health.close()

    async def root(self, _request: Request) -> Response:
        """``{name, version, links…}``."""
        return _json(
            {
                "name": "OmoiOS",
                "version": __version__,
                "docs": "/docs",
                "redoc": "/redoc",
                "openapi": "/openapi.json",
                "health": "/health",
            }
        )

    async def health(self, _request: Request) -> Response:
        """Always 200: it says how the system is, and a gateway must not be taken out because one service is down."""
        return _json(await self._health.answer())

    async def livez(self, _request: Request) -> Response:
        return _json({"status": "ok"})

    async def readyz(self, _request: Request) -> Response:
        return _json({"status": "ok"}) if self.ready else _json({"status": "unavailable"}, 503, {"Retry-After": "1"})

    async def metrics(self, request: Request) -> Response:
        """For operators beside this process only: the gateway adds the client's address to all that it hands on."""
        if "x-forwarded-for" in request.headers:
            raise NOT_FOUND()
        return Response(telemetry.exposition(), headers={"Content-Type": telemetry.METRICS_CONTENT_TYPE})

    async def openapi(self, request: Request) -> Response:
        return self._document.response(request, "no-cache")

    async def error_page(self, request: Request) -> Response:
        """What a client sees instead of the gateway's own 413, 502 or 504; the gateway asks for it by GET."""
        status = request.path_params["status"]
        if status not in ERROR_PAGES:
            raise NOT_FOUND()
        return _problem(request.scope, ERROR_PAGES[status](), status, "")

    async def limited_page(self, request: Request) -> Response:
        """What a client sees when the gateway's own limit stops it; the gateway asks for it by GET."""
        error = RATE_LIMITED(retry_after_s=float(request.path_params["seconds"]))
        return _problem(request.scope, error, 429, "")

    async def fallback(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Requests that no page here takes: a path of nobody, of an unbuilt operation, or of a service that is away."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1013, "reason": SERVICE_UNAVAILABLE.code})
            return
        path = _routed_path(scope)
        error, status = self.refusal(scope["method"], path)
        await _problem(scope, error, status, path)(scope, receive, send)

    def refusal(self, method: str, path: str) -> tuple[AppError, int]:
        """Why the edge has no answer to a request, and the status that says it."""
        rule = self._routes.rule_of(path, self._settings.env)
        if rule is None or rule.owner == EDGE:
            return NOT_FOUND(), 404
        listed = pending.find(self._not_built, self._built, method, path)
        if listed is not None:
            return NOT_BUILT_YET(f"{listed} is not built yet.", operation=listed), 404
        # The rule's owner has no living instance: the gateway sends its requests here only then.
        return SERVICE_UNAVAILABLE(f"The service {rule.owner} does not answer.", service=rule.owner), 502


def _routed_path(scope: Scope) -> str:
    """The path as the gateway's rules read it: an encoded slash parts nothing, so it is left as it came."""
    return "%2F".join(map(unquote, _ENCODED_SLASH.split(scope["raw_path"].decode("latin-1"))))


def _json(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        orjson.dumps(body),
        status_code=status,
        media_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def _problem(scope: Scope, error: AppError, status: int, instance: str) -> Response:
    code, headers, body = render(error, request_id=context.request_id.get(), instance=instance, status=status)
    response = Response(b"" if scope["method"] == "HEAD" else body, status_code=code)
    response.raw_headers = headers
    return response


def document() -> dict[str, Any]:
    """The edge's own OpenAPI document."""
    service = {
        "type": "object",
        "required": ["status", "ready", "instances"],
        "properties": {
            "status": {"type": "string", "enum": ["healthy", "degraded", "unhealthy"]},
            "ready": {"type": "integer", "description": "Instances that are ready."},
            "instances": {"type": "integer"},
            "failed": {"type": "array", "items": {"enum": ["timeout", "unreachable", "not ready"]}},
        },
    }
    health = {
        "type": "object",
        "required": ["status", "version", "services"],
        "properties": {
            "status": {"type": "string", "enum": ["healthy", "degraded"]},
            "version": {"type": "string"},
            "services": {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/ServiceHealth"}},
        },
    }
    names = ("name", "version", "docs", "redoc", "openapi", "health")
    root = {"type": "object", "required": list(names), "properties": {name: {"type": "string"} for name in names}}

    def answer(schema: str) -> dict[str, Any]:
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
        return {"200": {"description": "Successful response", "content": content}}

    return {
        "openapi": "3.1.0",
        "info": {"title": "edge", "version": __version__},
        "tags": [{"name": "system", "description": "The whole system."}],
        "paths": {
            "/": {
                "get": {
                    "tags": ["system"],
                    "operationId": "system.root",
                    "summary": "Name, version and links",
                    "responses": answer("Root"),
                }
            },
            "/health": {
                "get": {
                    "tags": ["system"],
                    "operationId": "system.health",
                    "summary": "Health of every service",
                    "description": "Always 200. `degraded` when any instance of any service is not ready.",
                    "responses": answer("SystemHealth"),
                }
            },
        },
        "components": {"schemas": {"Root": root, "SystemHealth": health, "ServiceHealth": service}},
    }
