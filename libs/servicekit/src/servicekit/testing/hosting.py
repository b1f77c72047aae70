"""Running services for tests: real database, NATS and Redis, and tokens that they trust."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, get_type_hints

from omoios.identity.v1 import identity_pb2
from omoios_local.embedded.nats import EmbeddedNats
from omoios_local.embedded.redis import EmbeddedRedis
from servicekit.auth.setup import build_authenticator
from servicekit.auth.testing import ROLE_PERMISSIONS, Signing
from servicekit.db import Database
from servicekit.events.topology import plan_of
from servicekit.host import Running, Service, running
from servicekit.settings import ServiceSettings
from servicekit.testing.brokers import apply_topology
from servicekit.testing.postgres import Databases


class HostedSigning(Signing):
    """A `Signing` that writes memberships and revocations into every hosted service's replica."""

    def __init__(self) -> None:
        super().__init__()
        self.databases: list[Database] = []
        self._members: dict[tuple[str, str], identity_pb2.Membership] = {}

    async def member(
        self,
        user_id: str,
        organization_id: str,
        role: str = "owner",
        *,
        permissions: Sequence[str] | None = None,
        active: bool = True,
        version: int | None = None,
    ) -> None:
        """Write a membership row into each database as identity's event would."""
        granted = ROLE_PERMISSIONS.get(role, ()) if permissions is None else permissions
        self._members[user_id, organization_id] = identity_pb2.Membership(
            user_id=user_id,
            organization_id=organization_id,
            role=role,
            permissions=granted,
            active=active,
            version=version or 1,
        )
        for database in self.databases:
            self.db = database
            await super().member(user_id, organization_id, role, permissions=granted, active=active, version=version)

    def memberships_of(self, user_ids: Sequence[str]) -> identity_pb2.BatchGetMembershipsResponse:
        """What a stand-in for identity answers when a service asks again after a refusal."""
        found = [member for (user_id, _), member in self._members.items() if user_id in user_ids]
        return identity_pb2.BatchGetMembershipsResponse(memberships=found)

    async def revoke(self, principal_type: str, principal_id: str) -> None:
        """Write a revocation of now into each database as identity's event would."""
        for database in self.databases:
            self.db = database
            await super().revoke(principal_type, principal_id)


class ServiceHosts:
    """Starts services one by one and ends them in reverse order."""

    def __init__(self, databases: Databases, nats: EmbeddedNats, redis: EmbeddedRedis, signing: HostedSigning) -> None:
        self._databases = databases
        self._nats = nats
        self._redis = redis
        self._signing = signing
        self._services: list[Service] = []
        self._stops: list[tuple[asyncio.Event, asyncio.Task[None]]] = []

    async def __call__(
        self,
        build: Callable[[Any], Service],
        name: str,
        *,
        database_url: str | None = None,
        rpc_targets: dict[str, str] | None = None,
        worker: bool = False,
        jobs: bool = False,
        listen: bool = False,
        **settings: Any,
    ) -> Running:
        """Build and start a service; it ends with the test.

        `worker` runs relay and consumers, `jobs` the jobs, `listen` opens the HTTP port. `rpc_targets` are the peers'
        addresses (`rpc_stub`), `settings` further fields of the service's settings. `database_url` makes it another
        instance on a database that exists.
        """
        settings_class: type[ServiceSettings] = get_type_hints(build).get("settings", ServiceSettings)
        values: dict[str, Any] = {
            "env": "test",
            "http_port": 0,
            "rpc_port": 0,
            "database_url": database_url or self._databases(name).url,
            "database_pool_size": 8,
            "nats_url": self._nats.url,
            "redis_url": self._redis.url(),
            "rpc_targets": rpc_targets or {},
            "shutdown_grace_s": 2.0,
            # A test machine that is busy with other tests is no reason to refuse a sign-in.
            "redis_timeout_s": 10.0,
        }
        service = build(settings_class(**(values | settings)))
        database = service.db
        if service.authenticator is None and isinstance(database, Database):
            channels: Any = service.channels
            service.authenticator = build_authenticator(
                service.settings, database, channels, fetch_jwks=self._signing.fetch_jwks
            )
        if isinstance(database, Database) and service.name != "identity":
            self._signing.databases.append(database)
        self._services.append(service)
        await apply_topology(self._nats.url, plan_of({item.name: item for item in self._services}.values()))
        started: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        # A task of its own, because a service must be left by the task that entered it, and fixtures change tasks.
        task = asyncio.create_task(_serve(service, started, stop, worker=worker, jobs=jobs, listen=listen))
        self._stops.append((stop, task))
        return await started

    async def close(self) -> None:
        """End all services."""
        stops, self._stops = self._stops, []
        for stop, task in reversed(stops):
            stop.set()
            await task


async def _serve(service: Service, started: asyncio.Future[Running], stop: asyncio.Event, **options: Any) -> None:
    try:
        async with running(service, **options) as found:
            started.set_result(found)
            await stop.wait()
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)
