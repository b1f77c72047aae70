from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter

from omoios_local.embedded.process import free_port
from omoios_local.embedded.redis import EmbeddedRedis
from servicekit.auth.access import Access, AccessTable
from servicekit.auth.errors import MEMBERSHIPS_UNAVAILABLE
from servicekit.auth.principal import Membership, Principal, PrincipalType
from servicekit.db import Database
from servicekit.errors import UNAUTHENTICATED
from servicekit.host import Service
from servicekit.http.app import create_app
from servicekit.settings import ServiceSettings
from servicekit.testing.postgres import Databases, TestDatabase

MIGRATIONS = Path(__file__).parents[1] / "db" / "migrations_fixture"


class Doorkeeper:
    """Stands for the authenticator: `Bearer <name>` is the user of that name; `fresh` is what a refresh brings."""

    def __init__(self) -> None:
        self.memberships: dict[str, dict[str, Membership]] = {}
        self.fresh: dict[str, dict[str, Membership]] = {}
        self.refreshed = 0
        self.away = False

    async def authenticate(self, scope: Mapping[str, Any]) -> Principal | None:
        for name, value in scope["headers"]:
            if name == b"authorization":
                kind, _, who = value.decode().partition(" ")
                if kind != "Bearer" or who == "forged":
                    raise UNAUTHENTICATED()
                type_ = PrincipalType.AGENT if who.startswith("agent") else PrincipalType.USER
                return Principal(type_, who, memberships=self.memberships.get(who, {}))
        return None

    async def refresh(self, principal: Principal) -> Principal | None:
        self.refreshed += 1
        if self.away:
            raise MEMBERSHIPS_UNAVAILABLE()
        fresh = self.fresh.get(principal.id)
        return None if fresh is None else Principal(principal.type, principal.id, memberships=fresh)

    def on_revoked(self, callback: Callable[[str, str], None]) -> None:
        del callback

    async def start(self) -> None:
        return None

    async def close(self) -> None:
        return None


Serve = Callable[..., AbstractAsyncContextManager[httpx2.AsyncClient]]


@pytest.fixture
def doorkeeper() -> Doorkeeper:
    return Doorkeeper()


@pytest.fixture
def make_service(doorkeeper: Doorkeeper) -> Callable[..., Service]:
    """A service of the given routers; `operations` maps operation ids to access, `Access()` where left out."""

    def make(
        *routers: APIRouter, operations: Mapping[str, Access] | None = None, settings: Any = None, **parts: Any
    ) -> Service:
        served: dict[str, Access] = {
            f"{route.tags[0]}.{route.endpoint.__name__}": Access() for router in routers for route in router.routes
        }
        served |= {hot.operation_id: Access() for hot in parts.get("hot_routes", ())}
        return Service(
            name="kit",
            settings=settings or ServiceSettings(env="test"),
            access=AccessTable(operations=served | dict(operations or {})),
            routers=routers,
            authenticator=doorkeeper,
            **parts,
        )

    return make


@pytest.fixture
def serve(make_service: Callable[..., Service]) -> Serve:
    """`async with serve(router, …) as http`: a client over ASGI, signed in as `ada`."""

    @asynccontextmanager
    async def serving(*routers: APIRouter, **options: Any) -> AsyncIterator[httpx2.AsyncClient]:
        app = create_app(make_service(*routers, **options))
        transport = httpx2.ASGITransport(app=app, client=("127.0.0.1", 50000))
        headers = {"Authorization": "Bearer ada"}
        async with httpx2.AsyncClient(transport=transport, base_url="http://kit.test", headers=headers) as client:
            yield client

    return serving


@pytest.fixture
def kit_database(database: Databases) -> TestDatabase:
    return database("kit", migrations=MIGRATIONS)


@pytest.fixture
async def db(kit_database: TestDatabase) -> AsyncIterator[Database]:
    async with kit_database.opened() as opened:
        yield opened


@pytest.fixture
def redis_part(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A Redis server of this test, which it may stop."""
    server = EmbeddedRedis(tmp_path / "redis", free_port())
    server.start(timeout_s=20)
    yield server
    server.stop()
