"""The host: turns one :class:`Service` into a running process."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, cast

import httpx2
import uvloop
from fastapi import APIRouter
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from servicekit import logging, telemetry
from servicekit.db.purge import purge_jobs
from servicekit.http.app import create_app
from servicekit.http.hot import HotRoute
from servicekit.http.probes import Readiness, create_probe_app
from servicekit.http.server import HttpServer
from servicekit.jobs import Job as Job
from servicekit.jobs import JobRunner
from servicekit.leader import LeaderLocks
from servicekit.ports import AccessTablePart, AuthenticatorPart, DatabasePart, ListeningPart, Part, WorkerPart
from servicekit.redis import RedisClient
from servicekit.settings import ServiceSettings

if TYPE_CHECKING:
    from servicekit.auth.access import AccessTable
    from servicekit.db import Database
    from servicekit.rpc import RpcChannels

Role = Literal["server", "worker"]
Lifespan = Callable[[], AbstractAsyncContextManager[object]]

_log = logging.get_logger(__name__)

# A request makes some hundred objects and few cycles. Python's own first threshold (700) has the collector run every
# few requests, in which it looks at all requests under way and finds nothing: 15 % of the processor time under load.
GC_THRESHOLDS = (20_000, 10, 10)


@dataclass(slots=True)
class Service:
    """Everything one service is made of; built by ``main.build(settings)``.

    The host starts ``channels, authenticator, bus, resources, redis`` (those given, in this order), then the
    ``lifespans``, and closes them in reverse after the listeners are drained; ``db`` last.
    """

    name: str
    settings: ServiceSettings
    access: AccessTablePart
    db: DatabasePart | None = None
    channels: Part | None = None
    authenticator: AuthenticatorPart | None = None
    """Made from settings, ``db`` and ``channels`` by the host when it is not given."""
    bus: Part | None = None
    """``servicekit.events.Bus(settings)``: the NATS connection of the process."""
    resources: Part | None = None
    """``servicekit.events.Resources(db, channels)``: resource → organization."""
    redis: RedisClient | None = None
    """Made from ``settings.redis_url`` by the host when it is not given."""
    routers: Sequence[APIRouter] = ()
    hot_routes: Sequence[HotRoute] = ()
    mounts: Sequence[BaseRoute] = ()
    """Raw Starlette routes (an MCP server, a WebSocket); they guard themselves."""
    servicers: Sequence[Any] = ()
    """``servicekit.rpc.RpcServicer``."""
    consumers: Sequence[Any] = ()
    """``servicekit.events.Consumers``."""
    jobs: Sequence[Job] = ()
    replicas: Sequence[Any] = ()
    """``servicekit.events.ReplicaSource``."""
    lifespans: Sequence[Lifespan] = ()
    """Factories of async context managers entered at start, in both roles."""
    stopping: Sequence[Callable[[], None]] = ()
    """Called when a stop begins, before anything is drained: what holds requests open (long polls) lets them go."""
    errors: ModuleType | None = None
    """Module of ErrorSpec constants, for documentation."""
    revoked: list[Callable[[str, str], None]] = field(default_factory=list)

    def on_revoked(self, callback: Callable[[str, str], None]) -> None:
        """``callback(principal_type, principal_id)`` when that principal's session ended."""
        self.revoked.append(callback)


@dataclass(slots=True)
class Running:
    """A started service. ``http``: a client over ASGI, without a socket. Ports are 0 where nothing listens."""

    service: Service
    app: ASGIApp
    http: httpx2.AsyncClient
    readiness: Readiness
    http_port: int = 0
    rpc_port: int = 0
    worker: WorkerPart | None = None


@asynccontextmanager
async def running(
    service: Service,
    *,
    role: Role = "server",
    listen: bool = False,
    worker: bool | None = None,
    jobs: bool | None = None,
) -> AsyncIterator[Running]:
    """The started service, stopped at the end of the block.

    ``listen``: open the HTTP port, too. ``worker``, ``jobs``: whether relay and consumers, and the jobs, run here;
    by default in role ``worker`` and with ``settings.embed_worker``.
    """
    settings = service.settings
    works = role == "worker" or settings.embed_worker
    async with AsyncExitStack() as stack:
        if service.db is not None:
            stack.push_async_callback(service.db.close)
        _prepare(service)
        for part in (service.channels, service.authenticator, service.bus, service.resources, service.redis):
            if part is not None:
                await _start(stack, part)
        for callback in service.revoked:
            if service.authenticator is not None:
                service.authenticator.on_revoked(callback)
        for lifespan in service.lifespans:
            await stack.enter_async_context(lifespan())

        readiness = Readiness(service.db)
        app: ASGIApp
        if role == "server":
            app = create_app(service, authenticator=service.authenticator, readiness=readiness)
        else:
            app = create_probe_app(service.name, settings, readiness)
        client = await stack.enter_async_context(
            httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=settings.public_url)
        )
        found = Running(service, app, client, readiness)

        if works if worker is None else worker:
            found.worker = _event_worker(service)
            if found.worker is not None:
                await _start(stack, found.worker)
                readiness.checks["consumers"] = found.worker.ready
        if works if jobs is None else jobs:
            leader = LeaderLocks(service.db) if service.db is not None else None
            purging = purge_jobs(cast("Database", service.db), settings) if service.db is not None else []
            all_jobs = [*service.jobs, *purging]
            await _start(stack, JobRunner(all_jobs, leader, grace_s=settings.shutdown_grace_s, database=service.db))
        rpc_server = _rpc_server(service) if role == "server" and service.servicers else None
        if rpc_server is not None:
            await _start(stack, rpc_server)
            found.rpc_port = rpc_server.port
        http_server: HttpServer | None = None
        if listen:
            port = settings.http_port if role == "server" else settings.worker_http_port
            http_server = HttpServer(app, settings.http_host, port, grace_s=settings.shutdown_grace_s)
            await _start(stack, http_server)
            found.http_port = http_server.port
        readiness.serving = True
        try:
            yield found
        finally:
            readiness.serving = False
            for let_go in service.stopping:
                let_go()
            if rpc_server is not None:
                await cast("Any", rpc_server).drain()
            if http_server is not None and settings.shutdown_delay_s:
                await http_server.drain(settings.shutdown_delay_s)


async def _start(stack: AsyncExitStack, part: Part) -> None:
    stack.push_async_callback(part.close)
    await part.start()


def _prepare(service: Service) -> None:
    """Makes the parts that follow from the settings."""
    if service.authenticator is None and service.db is not None:
        from servicekit.auth.setup import build_authenticator

        service.authenticator = cast(
            "AuthenticatorPart",
            build_authenticator(
                service.settings, cast("Database", service.db), cast("RpcChannels | None", service.channels)
            ),
        )
    if service.redis is None and service.settings.redis_url is not None:
        service.redis = RedisClient(service.settings)


def _event_worker(service: Service) -> WorkerPart | None:
    if service.db is None:
        return None
    from servicekit.events.worker import EventWorker

    return cast("WorkerPart", EventWorker(service))


def _rpc_server(service: Service) -> ListeningPart:
    from servicekit.rpc.server import RpcServer

    authenticator = service.authenticator
    if authenticator is None:
        raise ValueError(f"{service.name} serves RPCs and has no authenticator")
    return RpcServer(
        service.settings,
        service.servicers,
        cast("AccessTable", service.access),
        cast("Any", authenticator).authenticate_service,
    )


def run(service: Service, role: Role = "server") -> None:
    """Runs the service until SIGTERM or SIGINT; a second signal ends it at once with status 1.

    Order of a stop: readiness off, after ``shutdown_delay_s`` and once no request comes any more the listeners close
    and drain, then jobs and consumers end, then the connections close.
    """
    logging.configure(service.settings, service.name)
    telemetry.setup_tracing(service.settings, service.name)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(service, role))
    finally:
        telemetry.shutdown_tracing()


async def _run(service: Service, role: Role) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stopped() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped)
    async with running(service, role=role, listen=True) as found:
        # What lives now lives as long as the process: the collector need not look at it at every cycle.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        _log.info("started", role=role, http_port=found.http_port, rpc_port=found.rpc_port)
        await stop.wait()
        _log.info("stopping", role=role)
    _log.info("stopped", role=role)
