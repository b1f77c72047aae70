"""The one ASGI layer around the routes.

Request id and context, client address, admission, body limit, security headers, errors → problems, one log line,
metrics, span.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from prometheus_client import Histogram
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from servicekit import context, telemetry
from servicekit.errors import OVERLOADED, AppError
from servicekit.http import admission
from servicekit.http.address import ClientAddress
from servicekit.http.body import METER, BodyMeter, too_large
from servicekit.http.faults import as_app_error
from servicekit.http.operations import STATE
from servicekit.http.problems import render
from servicekit.ids import new_id
from servicekit.logging import get_logger, request_line
from servicekit.settings import ServiceSettings

if TYPE_CHECKING:
    from servicekit.http.operations import Operation

_log = get_logger(__name__)
_SANE_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,64}")
CLIENT_CLOSED = 499
MAX_LOGGED_PATH = 500

SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"strict-origin-when-cross-origin"),
    (b"permissions-policy", b"geolocation=(), microphone=(), camera=()"),
]
HSTS = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")
EXPOSED_HEADERS = ["X-Request-ID", "Retry-After", "RateLimit", "RateLimit-Policy", "Idempotent-Replayed"]
PREFLIGHT_MAX_AGE_S = 600


class RequestState:
    """What the edge keeps of one running request."""

    __slots__ = ("address", "forwarded_for", "headers", "operation", "request_id", "shed", "started", "status")

    def __init__(self, request_id: str, headers: list[tuple[bytes, bytes]]) -> None:
        self.request_id = request_id
        self.headers = headers
        self.operation: Operation | None = None
        self.status = 0
        self.shed = False
        """Whether it is refused because too many run."""
        self.started = time.perf_counter()
        self.forwarded_for: bytes | None = None
        self.address = ""


class Edge:
    """ASGI application around ``inner``; everything a request passes before its route."""

    def __init__(self, inner: ASGIApp, settings: ServiceSettings) -> None:
        self._inner = inner
        self._security = [*SECURITY_HEADERS, HSTS] if settings.is_production else list(SECURITY_HEADERS)
        self._addresses = ClientAddress(settings.trusted_proxies)
        self._admission = admission.Admission(settings.max_requests)
        self._cors = CORSMiddleware(
            self._guarded,
            allow_origins=settings.cors_origins,
            allow_credentials=True,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
            max_age=PREFLIGHT_MAX_AGE_S,
        )
        self._durations = telemetry.histogram(
            "http_server_request_duration_seconds",
            "Duration of HTTP requests.",
            ("method", "operation", "status_class"),
        )
        self._observers: dict[tuple[str, str, int], Histogram] = {}
        self._in_flight = 0
        telemetry.gauge("http_server_active_requests", "HTTP requests that are running now.").set_function(
            lambda: self._in_flight
        )
        self._shed = telemetry.counter(
            "http_server_requests_shed_total", "HTTP requests refused because too many were running."
        )
        self._sockets = telemetry.gauge("websocket_connections", "WebSocket connections that are open now.")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            await self._http(scope, receive, send)
        elif kind == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._inner(scope, receive, send)

    def _open(self, scope: Scope) -> tuple[RequestState, bytes | None, int, str]:
        """The state of a request, its Origin, its declared body length (0 none, -1 unknown) and its traceparent."""
        request_id = origin = forwarded_for = proto = None
        length = 0
        trace = ""
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                request_id = value
            elif name == b"origin":
                origin = value
            elif name == b"content-length":
                length = int(value) if value.isdigit() else -1
            elif name == b"transfer-encoding":
                length = -1
            elif name == b"x-forwarded-for":
                forwarded_for = value if forwarded_for is None else forwarded_for + b"," + value
            elif name == b"x-forwarded-proto":
                proto = value
            elif name == b"traceparent":
                trace = value.decode("latin-1")
        known = request_id is not None and _SANE_ID.fullmatch(request_id) is not None
        text = request_id.decode() if known and request_id is not None else new_id()
        state = RequestState(text, [*self._security, (b"x-request-id", text.encode())])
        state.forwarded_for = forwarded_for
        state.address = self._addresses.resolve(scope, forwarded_for)
        if proto is not None and self._addresses.is_trusted(scope["client"][0] if scope.get("client") else ""):
            secure = proto.strip().lower() in (b"https", b"wss")
            plain = "ws" if scope["type"] == "websocket" else "http"
            scope["scheme"] = plain + "s" if secure else plain
        scope[STATE] = state
        return state, origin, length, trace if trace and telemetry.valid_traceparent(trace) else ""

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        state, origin, length, trace = self._open(scope)
        place: admission.Place | None = None
        if scope["path"] not in admission.PROBES:
            place = self._admission.enter()
            state.shed = place is None
        # uvicorn runs each request in a task of its own, in-process clients do not: what is set here must not leak.
        tokens = (
            (context.request_id, context.request_id.set(state.request_id)),
            (context.correlation_id, context.correlation_id.set(state.request_id)),
            (context.causation_id, context.causation_id.set("")),
            (context.traceparent, context.traceparent.set(trace)),
            (context.principal, context.principal.set(None)),
            (context.origin_subject, context.origin_subject.set("")),
            (context.access_entry, context.access_entry.set(None)),
            (admission.current, admission.current.set(place)),
        )
        if length:
            receive = scope[METER] = BodyMeter(receive, length, place=place)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                state.status = message["status"]
                message["headers"] = [*message.get("headers", ()), *state.headers]
                if place is not None:
                    place.end()
            await send(message)

        app: Callable[[Scope, Receive, Send], Awaitable[None]] = self._guarded if origin is None else self._cors
        self._in_flight += 1
        try:
            if telemetry.tracing():
                await self._traced(app, scope, receive, send_with_headers, trace)
            else:
                await app(scope, receive, send_with_headers)
        finally:
            self._in_flight -= 1
            if place is not None:
                place.end()
            self._finish(scope, state)
            for var, token in reversed(tokens):
                var.reset(token)

    async def _traced(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, trace: str) -> None:
        state: RequestState = scope[STATE]
        with telemetry.span(scope["method"], kind="server", parent=trace) as span:
            await app(scope, receive, send)
            if span is not None:
                operation = state.operation
                if operation is not None:
                    span.update_name(f"{scope['method']} {operation.path}")
                    span.set_attribute("http.route", operation.path)
                span.set_attribute("http.request.method", scope["method"])
                span.set_attribute("http.response.status_code", state.status)
                if state.status >= 500:
                    from opentelemetry.trace import Status, StatusCode

                    span.set_status(Status(StatusCode.ERROR))

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the routes; what they raise is answered as a problem."""
        state: RequestState = scope[STATE]
        try:
            if state.shed:
                raise OVERLOADED()
            meter: BodyMeter | None = scope.get(METER)
            if meter is not None and meter.declared > self.largest_limit:
                raise too_large(self.largest_limit)
            await self._inner(scope, receive, send)
        except ClientDisconnect:
            state.status = CLIENT_CLOSED
        except Exception as error:
            if isinstance(error.__cause__, ClientDisconnect):
                state.status = CLIENT_CLOSED
                return
            app_error, status, expected = as_app_error(error)
            self._log_error(scope, error, app_error, expected)
            if app_error.code == OVERLOADED.code:
                self._shed.inc()
            if state.status:
                # The head is out; only a broken connection can still tell the client.
                raise
            code, headers, body = render(app_error, request_id=state.request_id, instance=scope["path"], status=status)
            await send({"type": "http.response.start", "status": code, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    # Set by the application to the largest limit of any route, so that nothing larger is even waited for.
    largest_limit = 1 << 62

    def _log_error(self, scope: Scope, error: Exception, app_error: AppError, expected: bool) -> None:
        if not expected:
            _log.error("request failed", path=scope["path"], code=app_error.code, exc_info=error)
        elif not isinstance(error, AppError) and app_error.kind.status >= 500:
            _log.warning(
                "request failed", path=scope["path"], code=app_error.code, cause=f"{type(error).__name__}: {error}"
            )
        elif app_error.kind.status >= 500:
            cause = error.__cause__
            _log.info("request refused", code=app_error.code, cause=type(cause).__name__ if cause else None)

    def _finish(self, scope: Scope, state: RequestState) -> None:
        elapsed = time.perf_counter() - state.started
        operation = state.operation
        method: str = scope["method"]
        name = operation.id if operation is not None else "none"
        key = (method if operation is not None else "other", name, state.status // 100)
        observer = self._observers.get(key)
        if observer is None:
            observer = self._observers[key] = self._durations.labels(key[0], name, f"{key[2]}xx")
        observer.observe(elapsed)
        if scope["path"] in admission.PROBES and state.status < 400:
            return
        principal = context.principal.get()
        fields: dict[str, Any] = {
            "request_id": state.request_id,
            "method": method,
            "path": scope["path"][:MAX_LOGGED_PATH],
            "operation": name,
            "status": state.status,
            "ms": round(elapsed * 1000, 2),
            "client": state.address,
        }
        principal = context.principal.get()
        if principal is not None:
            fields["subject"] = principal.subject
        request_line(fields)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        state, _, _, trace = self._open(scope)
        scope["method"] = "WEBSOCKET"
        context.request_id.set(state.request_id)
        context.correlation_id.set(state.request_id)
        context.traceparent.set(trace)
        context.principal.set(None)
        closed = False

        async def send_and_watch(message: Message) -> None:
            nonlocal closed
            kind = message["type"]
            if kind == "websocket.accept":
                state.status = 101
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", state.request_id.encode())]
            elif kind == "websocket.close":
                closed = True
                state.status = state.status or 403
            await send(message)

        self._sockets.inc()
        try:
            await self._inner(scope, receive, send_and_watch)
        except Exception as error:
            app_error, _, expected = as_app_error(error)
            self._log_error(scope, error, app_error, expected)
            if not closed:
                await send_and_watch(
                    {
                        "type": "websocket.close",
                        "code": 1008 if app_error.kind.status < 500 else 1011,
                        "reason": app_error.code[:120],
                    }
                )
        finally:
            self._sockets.dec()
            self._finish(scope, state)
