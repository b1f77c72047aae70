"""One outgoing call: deadline, token, metadata, metrics, span, and the peer's error made again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from servicekit import context, telemetry
from servicekit.errors import AppError
from servicekit.rpc import metadata as names
from servicekit.rpc.context import RpcContext
from servicekit.rpc.service_token import TokenSource
from servicekit.rpc.wire import CALLER_UNAUTHENTICATED, DEADLINE_TOO_SHORT, PEER_UNAVAILABLE, from_rpc_error

if TYPE_CHECKING:
    from servicekit.rpc.channels import KitChannel

MIN_TIMEOUT_S = 0.02
"""With less time than this a call is not sent."""

_DURATION = ("rpc_client_duration_seconds", "Time of outgoing calls.", ("peer", "method", "status"))


class UnaryCall:
    """One method of one channel, called like a function."""

    __slots__ = ("_bound", "_bound_to", "_channel", "_deserializer", "_label", "_method", "_serializer", "_tokens")

    def __init__(
        self,
        channel: KitChannel,
        method: str,
        serializer: Callable[[Any], bytes] | None,
        deserializer: Callable[[bytes], Any] | None,
        tokens: TokenSource | None,
    ) -> None:
        self._channel = channel
        self._method = method
        self._label = method.rpartition("/")[2]
        self._serializer = serializer
        self._deserializer = deserializer
        self._tokens = tokens
        self._bound: Any = None
        self._bound_to: grpc.aio.Channel | None = None

    async def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str]] | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """The response. Raises the peer's `AppError`, or UNAVAILABLE / DEADLINE for what gRPC itself reports."""
        context.assert_no_transaction(f"RPC {self._method}")
        deadline = time.monotonic() + self._timeout(timeout)
        with telemetry.span(self._method.lstrip("/"), kind="client"):
            started = time.perf_counter()
            status = "OK"
            try:
                return await self._attempts(request, deadline, metadata, wait_for_ready, compression)
            except grpc.aio.AioRpcError as error:
                status = error.code().name
                raise from_rpc_error(error, self._channel.peer) from None
            except AppError:
                status = "NO_TOKEN"
                raise
            except asyncio.CancelledError:
                status = "CANCELLED"
                raise
            finally:
                telemetry.histogram(*_DURATION).labels(self._channel.peer, self._label, status).observe(
                    time.perf_counter() - started
                )

    async def _attempts(
        self,
        request: Any,
        deadline: float,
        metadata: Sequence[tuple[str, str]] | None,
        wait_for_ready: bool | None,
        compression: grpc.Compression | None,
    ) -> Any:
        again = True
        while True:
            token = await self._token(deadline)
            try:
                return await self._callable()(
                    request,
                    timeout=max(deadline - time.monotonic(), 0.0),
                    metadata=(*_outgoing(token), *(metadata or ())),
                    wait_for_ready=wait_for_ready,
                    compression=compression,
                )
            except grpc.aio.AioRpcError as error:
                # The peer checks the token before anything else, so this call has had no effect there.
                if not (again and token is not None and self._tokens is not None and _token_refused(error)):
                    raise
                again = False
                self._tokens.rejected(token)

    async def _token(self, deadline: float) -> str | None:
        if self._tokens is None:
            return None
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0.0)):
                return await self._tokens.token()
        except TimeoutError:
            raise PEER_UNAVAILABLE(peer="identity") from None

    def _timeout(self, wanted: float | None) -> float:
        timeout = self._channel.default_timeout_s if wanted is None else wanted
        inbound = RpcContext.inbound()
        if inbound is not None:
            timeout = min(timeout, inbound.remaining())
        if timeout < MIN_TIMEOUT_S:
            raise DEADLINE_TOO_SHORT(peer=self._channel.peer)
        return timeout

    def _callable(self) -> Any:
        raw = self._channel.raw()
        if raw is not self._bound_to:
            self._bound = raw.unary_unary(self._method, self._serializer, self._deserializer)
            self._bound_to = raw
        return self._bound


def _outgoing(token: str | None) -> list[tuple[str, str]]:
    items: list[tuple[str, str]] = []
    if token is not None:
        items.append((names.AUTHORIZATION, f"Bearer {token}"))
    inbound = RpcContext.inbound()
    principal = context.principal.get()
    subject = context.origin_subject.get() or (principal.subject if principal is not None else "")
    organization = inbound.organization_id if inbound is not None else None
    if organization is None and principal is not None:
        organization = principal.organization_id
    request = context.request_id.get()
    for name, value in (
        (names.SUBJECT, subject),
        (names.ORGANIZATION, organization),
        (names.REQUEST, request),
        (names.CORRELATION, context.correlation_id.get() or request),
        (names.TRACEPARENT, context.traceparent.get()),
    ):
        if value and value.isascii() and value.isprintable():
            items.append((name, value))
    return items


def _token_refused(error: grpc.aio.AioRpcError) -> bool:
    if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
        return False
    return from_rpc_error(error, "").code == CALLER_UNAUTHENTICATED.code
