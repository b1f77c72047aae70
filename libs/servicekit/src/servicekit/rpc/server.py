"""The gRPC server of a process.

One event loop and one port per process: `so_reuseport` is off, because two servers would otherwise share a port in
silence and each get half of the calls. Connections end after a while, so that clients balance over new instances.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc.aio
import structlog
from google.protobuf import descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from servicekit.auth.access import AccessTable
from servicekit.rpc import metadata as names
from servicekit.rpc.interceptor import Authenticate, CallInterceptor

if TYPE_CHECKING:
    from servicekit.settings import ServiceSettings

MAX_CONNECTION_AGE_MS = 300_000
MAX_CONNECTION_AGE_GRACE_MS = 30_000

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_connection_age_ms", MAX_CONNECTION_AGE_MS),
    ("grpc.max_connection_age_grace_ms", MAX_CONNECTION_AGE_GRACE_MS),
    ("grpc.keepalive_time_ms", names.KEEPALIVE_TIME_MS),
    ("grpc.keepalive_timeout_ms", names.KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", names.MIN_PING_INTERVAL_MS),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", names.MIN_PING_INTERVAL_MS),
    ("grpc.max_receive_message_length", names.MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", names.MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", names.MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", names.MAX_METADATA_BYTES),
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RpcServicer:
    """A servicer to serve: the generated `add_…_to_server`, the instance, and the service's full name."""

    add_to_server: Callable[[Any, Any], None]
    instance: Any
    full_name: str

    def methods(self) -> list[str]:
        """`<full_name>/<method>` of every method. Raises TypeError for a streaming one, KeyError for an unknown
        name."""
        service = descriptor_pool.Default().FindServiceByName(self.full_name)
        found = []
        for method in service.methods:
            if method.client_streaming or method.server_streaming:
                raise TypeError(f"{self.full_name}/{method.name} streams; calls between services are unary")
            found.append(f"{self.full_name}/{method.name}")
        return found


class RpcServer:
    """Serves `servicers` on `settings.rpc_host:rpc_port` (0: any free port; see `port` after `start`).

    Raises `AccessTableMismatch` when the access table and the served methods differ.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        servicers: Sequence[RpcServicer],
        access: AccessTable,
        authenticate: Authenticate,
    ) -> None:
        access.check_rpcs({method for servicer in servicers for method in servicer.methods()})
        self._settings = settings
        self._servicers = tuple(servicers)
        self._interceptor = CallInterceptor(access, authenticate)
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The bound port; 0 before `start`."""
        return self._port

    @property
    def in_flight(self) -> int:
        """Calls being answered now."""
        return self._interceptor.in_flight

    async def start(self) -> None:
        """Binds and serves. Raises OSError when the port is taken."""
        server = grpc.aio.server(interceptors=[self._interceptor], options=_OPTIONS)
        for servicer in self._servicers:
            servicer.add_to_server(servicer.instance, server)
            await self._health.set(servicer.full_name, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if not self._settings.is_production:
            from grpc_reflection.v1alpha import reflection

            listed = [servicer.full_name for servicer in self._servicers]
            reflection.enable_server_reflection([*listed, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        host = self._settings.rpc_host
        where = f"[{host}]:{self._settings.rpc_port}" if ":" in host else f"{host}:{self._settings.rpc_port}"
        try:
            self._port = server.add_insecure_port(where)
        except RuntimeError as error:
            raise OSError(f"the RPC port {where} cannot be bound: {error}") from error
        await server.start()
        self._server = server

    async def drain(self) -> None:
        """Reports NOT_SERVING to probes; calls are still answered."""
        await self._health.enter_graceful_shutdown()

    async def close(self) -> None:
        """Stops accepting and waits up to `settings.shutdown_grace_s` for the calls in flight.

        `Server.stop` alone does not wait for handlers whose client has gone, so they are waited for here.
        """
        server, self._server = self._server, None
        if server is None:
            return
        await self._health.enter_graceful_shutdown()
        grace = self._settings.shutdown_grace_s
        await server.stop(grace)
        try:
            async with asyncio.timeout(grace):
                await self._interceptor.idle.wait()
        except TimeoutError:
            log.warning("rpc_calls_abandoned", in_flight=self._interceptor.in_flight)
