"""A running identity service with real PostgreSQL, NATS and Redis, and people who use it."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from identity_service.main import build
from servicekit.host import Running
from servicekit.testing.hosting import ServiceHosts

PASSWORD = "Tulips-are-7-colours!"
SERVICE_SECRET = "the secret of the agents service"


@dataclass
class Person:
    """A registered, signed-in user."""

    id: str
    email: str
    access_token: str
    refresh_token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"}


@dataclass
class Identity:
    """The running service and what tests do with it again and again."""

    running: Running
    numbers: Any

    @property
    def http(self) -> Any:
        return self.running.http

    async def person(self, email: str | None = None) -> Person:
        email = email or f"person-{next(self.numbers)}@example.com"
        registered = await self.http.post("/api/v1/auth/register", json={"email": email, "password": PASSWORD})
        assert registered.status_code == 201, registered.text
        return await self.login(email, registered.json()["id"])

    async def login(self, email: str, user_id: str = "", password: str = PASSWORD) -> Person:
        answer = await self.http.post("/api/v1/auth/login", json={"email": email, "password": password})
        assert answer.status_code == 200, answer.text
        self.http.cookies.clear()
        tokens = answer.json()
        return Person(user_id, email, tokens["access_token"], tokens["refresh_token"])

    async def super_admin(self) -> Person:
        """A platform super admin, signed in as such."""
        person = await self.person()
        async with self.running.service.db.uow() as tx:
            await (await tx.connection()).execute("UPDATE users SET is_super_admin = true WHERE id = $1", person.id)
        return await self.login(person.email, person.id)

    async def organization(self, owner: Person) -> str:
        slug = f"org-{next(self.numbers)}"
        answer = await self.http.post(
            "/api/v1/organizations", json={"name": "Org", "slug": slug}, headers=owner.headers
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def role_id(self, owner: Person, organization_id: str, name: str) -> str:
        answer = await self.http.get(f"/api/v1/organizations/{organization_id}/roles", headers=owner.headers)
        return next(str(role["id"]) for role in answer.json() if role["name"] == name)

    async def member(self, owner: Person, organization_id: str, role: str) -> tuple[Person, str]:
        """(a new member with the role, his membership's id)."""
        person = await self.person()
        answer = await self.http.post(
            f"/api/v1/organizations/{organization_id}/members",
            json={"user_id": person.id, "role_id": await self.role_id(owner, organization_id, role)},
            headers=owner.headers,
        )
        assert answer.status_code == 201, answer.text
        return person, str(answer.json()["id"])


Start = Callable[..., Awaitable[Identity]]


@pytest.fixture
def settings() -> dict[str, Any]:
    return {
        "envelope_key": base64.b64encode(os.urandom(32)).decode(),
        "service_secrets": {"agents": hashlib.sha256(SERVICE_SECRET.encode()).hexdigest()},
    }


@pytest.fixture
async def start(service_host: ServiceHosts, settings: dict[str, Any]) -> Start:
    numbers = itertools.count(1)

    async def started(**changes: Any) -> Identity:
        return Identity(await service_host(build, "identity", **(settings | changes)), numbers)

    return started


@pytest.fixture
async def identity(start: Start) -> Identity:
    return await start()
