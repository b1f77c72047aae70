"""What every inbound call passes: token → allowed callers → deadline → handler → errors, with metrics and a span."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import structlog

from servicekit import context, telemetry
from servicekit.auth.access import ANY_SERVICE, WITHOUT_TOKEN, AccessTable
from servicekit.errors import AppError, Kind, internal
from servicekit.rpc import metadata as names
from servicekit.rpc.context import RpcContext, answering
from servicekit.rpc.wire import (
    CALLER_NOT_ALLOWED,
    CALLER_UNAUTHENTICATED,
    DEADLINE_EXCEEDED,
    DEADLINE_TOO_SHORT,
    abort,
    status_code,
)

MIN_REMAINING_S = 0.1
"""With less time left than this the answer would come too late; the work is not begun."""
TRIM_S = 0.02
"""The handler ends this much before the caller's deadline, so that the caller still gets the reason."""
MAX_DEADLINE_S = 30.0
"""Ceiling of a call, also for one that came without a deadline."""
UNGUARDED = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")
"""Served without a token: a probe has none, and reflection is off in production."""

Authenticate = Callable[[str], Awaitable[str]]
"""Service token → name of the service; raises UNAUTHENTICATED."""

_DURATION = ("rpc_server_duration_seconds", "Time of answered calls.", ("method", "caller", "status"))

log = structlog.get_logger(__name__)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of this server; `in_flight` counts the calls being answered."""

    def __init__(self, access: AccessTable, authenticate: Authenticate) -> None:
        self._access = access
        self._authenticate = authenticate
        self._wrapped: dict[str, tuple[Any, grpc.RpcMethodHandler[Any, Any]]] = {}
        self.in_flight = 0
        self.idle = asyncio.Event()
        self.idle.set()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler of a call, guarded."""
        handler = await continuation(details)
        method = details.method
        if handler is None or method.startswith(UNGUARDED):
            return handler
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler.unary_unary:
            known = (handler.unary_unary, self._guard(method, handler))
            self._wrapped[method] = known
        return known[1]

    def _guard(self, method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        behaviour: Any = handler.unary_unary
        service, _, name = method.lstrip("/").partition("/")
        callers = self._access.callers_of(service, name) or frozenset()

        async def answer(request: Any, servicer_context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            return await self._answer(method, name, callers, behaviour, request, servicer_context)

        return grpc.unary_unary_rpc_method_handler(
            answer, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
        )

    async def _answer(
        self,
        method: str,
        name: str,
        callers: frozenset[str],
        behaviour: Any,
        request: Any,
        servicer_context: grpc.aio.ServicerContext[Any, Any],
    ) -> Any:
        started = time.monotonic()
        caller, status = "", "OK"
        failure: AppError | None = None
        metadata = {key: value for key, value in servicer_context.invocation_metadata() or () if isinstance(value, str)}
        self.in_flight += 1
        self.idle.clear()
        try:
            with (
                context.bind(
                    request=metadata.get(names.REQUEST, ""),
                    correlation=metadata.get(names.CORRELATION) or metadata.get(names.REQUEST, ""),
                    subject=metadata.get(names.SUBJECT, ""),
                ),
                telemetry.span(method.lstrip("/"), kind="server", parent=telemetry.extract(metadata)),
            ):
                try:
                    caller = await self._caller(callers, metadata)
                    call = RpcContext(
                        method=method,
                        caller=caller,
                        subject=metadata.get(names.SUBJECT, ""),
                        organization_id=metadata.get(names.ORGANIZATION) or None,
                        deadline=started + _allowed_time(servicer_context.time_remaining()) - TRIM_S,
                    )
                    return await _within_deadline(call, behaviour, request, servicer_context)
                except AppError as error:
                    failure = error
                except asyncio.CancelledError:
                    status = "CANCELLED"
                    raise
                except Exception as error:
                    log.error("rpc_failed", method=method, caller=caller, exc_info=error)
                    failure = internal()
            status = status_code(failure.kind).name
            if failure.kind is not Kind.INTERNAL:
                log.info("rpc_refused", method=method, caller=caller, code=failure.code, status=status)
            await abort(servicer_context, failure)
        finally:
            self.in_flight -= 1
            if self.in_flight == 0:
                self.idle.set()
            telemetry.histogram(*_DURATION).labels(name, caller or "none", status).observe(time.monotonic() - started)

    async def _caller(self, callers: frozenset[str], metadata: dict[str, str]) -> str:
        """The calling service. An empty set of callers (no entry in the access table) admits none."""
        if callers == WITHOUT_TOKEN:
            return ""
        scheme, _, token = metadata.get(names.AUTHORIZATION, "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise CALLER_UNAUTHENTICATED()
        try:
            caller = await self._authenticate(token)
        except AppError as error:
            if error.kind is Kind.UNAUTHENTICATED:
                raise CALLER_UNAUTHENTICATED() from None
            raise
        if caller not in callers and callers != ANY_SERVICE:
            raise CALLER_NOT_ALLOWED(caller=caller)
        return caller


def _allowed_time(remaining: float | None) -> float:
    """Seconds this call may take. Raises `rpc.deadline_too_short` when beginning makes no sense."""
    if remaining is None:
        return MAX_DEADLINE_S
    if remaining < MIN_REMAINING_S:
        raise DEADLINE_TOO_SHORT(
            f"Only {max(remaining, 0) * 1000:.0f} ms were left of this call's deadline; it was not begun."
        )
    return min(remaining, MAX_DEADLINE_S)


async def _within_deadline(
    call: RpcContext, behaviour: Any, request: Any, servicer_context: grpc.aio.ServicerContext[Any, Any]
) -> Any:
    with answering(call):
        try:
            async with asyncio.timeout(call.remaining()) as limit:
                return await behaviour(request, servicer_context)
        except TimeoutError:
            if limit.expired():
                raise DEADLINE_EXCEEDED() from None
            raise
