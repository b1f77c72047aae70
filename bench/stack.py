"""The stack that is measured: embedded, on ports and state of its own, with tenants of known size."""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import asyncpg
import httpx2

from bench import seeds
from bench.processes import Watch, pss_mb
from omoios_local import control
from omoios_local.client import StackClient
from omoios_local.embedded.process import write_private
from omoios_local.mailbox import Mailbox
from omoios_local.ports import SERVICES

T = TypeVar("T")
OFFSET = 9000
"""Far from the default ports and from those that tests choose; OMOIOS_PORT_OFFSET replaces it."""
PASSWORD = "Measure-Twice-Cut-1!"
TENANTS = ("small", "large", "queue")
KEPT = "bench.json"
SMALL, LARGE = 1_000, 100_000
"""Tickets of the two organizations that are compared."""
SANDBOXES = 128
CLAIMABLE = 10_000


@dataclass(frozen=True)
class Tenant:
    """A signed-in owner with an organization and a project."""

    email: str
    user_id: str
    token: str
    organization_id: str
    project_id: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclass
class Stack:
    """The running stack and what was put into it."""

    client: StackClient
    small: Tenant = field(init=False)
    large: Tenant = field(init=False)
    queue: Tenant = field(init=False)
    sandboxes: list[str] = field(default_factory=list)

    def up(self) -> float:
        """Start everything; seconds until all was ready."""
        began = time.monotonic()
        self.client.up()
        return time.monotonic() - began

    def environment(self, service: str) -> dict[str, str]:
        """The environment that a service runs in."""
        return self.client.stack().environments.service(service)

    def database_url(self, service: str) -> str:
        return _read(self.environment(service)["OMOIOS_DATABASE_URL_FILE"])

    def http_port(self, service: str) -> int:
        return self.client.stack().plan.http(service)

    @property
    def gateway_port(self) -> int:
        return self.client.stack().plan.fixed("gateway")

    def pids(self) -> dict[str, int]:
        """Process id of each part."""
        return {unit["part"]: int(unit["pid"]) for unit in self.client.status() if unit.get("pid")}

    def watch(self, more: Mapping[str, int] | None = None) -> Watch:
        """Watches services, gateway, and `more`."""
        pids = self.pids()
        watched = {name: pids[name] for name in (*SERVICES, "gateway", "nats", "postgres")}
        supervisor = int(control.call(self.client.state.socket_path, {"verb": "ping"})["pid"])
        return Watch({**watched, **(more or {})}, [supervisor])

    def memory_mb(self) -> dict[str, float]:
        """PSS of each service."""
        pids = self.pids()
        return {name: pss_mb(pids[name]) for name in SERVICES}

    def sql(self, service: str, work: Callable[[asyncpg.Connection[Any]], Coroutine[Any, Any, T]]) -> T:
        """Run something on a connection to a service's database, with the service's own role."""

        async def run() -> T:
            connection = await asyncpg.connect(self.database_url(service), command_timeout=120)
            try:
                return await work(connection)
            finally:
                await connection.close()

        return asyncio.run(run())

    def seed(self) -> None:
        """Make the tenants and fill them."""
        mailbox = Mailbox(self.client.state.mail)
        with self._http() as http:
            self.small, self.large, self.queue = (_tenant(http, mailbox, name) for name in TENANTS)
        for tenant, count in ((self.small, SMALL), (self.large, LARGE)):
            self.sql("workflow", lambda c, t=tenant, n=count: seeds.tickets(c, t.organization_id, t.project_id, n))  # type: ignore[misc]
        self.sql("workflow", lambda c: seeds.tasks(c, self.queue.organization_id, self.queue.project_id, CLAIMABLE))
        self.sql("workflow", seeds.settle)
        self.sandboxes = self.sql("agents", lambda c: seeds.sandboxes(c, self.small.organization_id, SANDBOXES))

        self._remember()

    def resume(self) -> bool:
        """Whether a stack of an earlier run is there, filled; one without contents is deleted."""
        file = self.client.state.secrets / KEPT
        if self.client.running() and file.exists():
            kept = json.loads(file.read_text())
            self.sandboxes = kept["sandboxes"]
            with self._http() as http:
                for name in TENANTS:
                    # Tokens are short-lived.
                    setattr(self, name, replace(Tenant(**kept[name]), token=_token(http, kept[name]["email"])))
            return True
        if self.client.state.exists():
            self.down()
        return False

    def _remember(self) -> None:
        tenants = {name: asdict(getattr(self, name)) for name in TENANTS}
        content = json.dumps({**tenants, "sandboxes": self.sandboxes})
        write_private(self.client.state.secrets / KEPT, content)

    def _http(self) -> httpx2.Client:
        return httpx2.Client(base_url=f"http://127.0.0.1:{self.gateway_port}", timeout=30, trust_env=False)

    def down(self) -> None:
        """End everything and delete its data."""
        self.client.down()
        self.client.state.delete()


def module(name: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """A process of this package that talks over its standard streams."""
    return subprocess.Popen(
        [sys.executable, "-m", name],
        env=None if environment is None else dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def _tenant(http: httpx2.Client, mailbox: Mailbox, name: str) -> Tenant:
    mark = secrets.token_hex(4)
    email = f"bench-{name}-{mark}@example.com"
    made = _ok(http.post("/api/v1/auth/register", json={"email": email, "password": PASSWORD, "full_name": name}))
    secret = mailbox.secret(email, "/verify-email")
    _ok(http.post("/api/v1/auth/verify-email", json={"token": secret}))
    token = _token(http, email)
    headers = {"Authorization": f"Bearer {token}"}
    organization = _ok(http.post("/api/v1/organizations", json={"name": name, "slug": f"b-{mark}"}, headers=headers))
    given = {"organization_id": organization["id"], "name": f"Project {name}"}
    project = _ok(http.post("/api/v1/projects", json=given, headers=headers))
    return Tenant(email, made["id"], token, organization["id"], project["id"])


def _token(http: httpx2.Client, email: str) -> str:
    login = _ok(http.post("/api/v1/auth/login", json={"email": email, "password": PASSWORD}))
    # What follows is signed by the token, not by a cookie.
    http.cookies.clear()
    return str(login["access_token"])


def _ok(answer: httpx2.Response) -> Any:
    if not answer.is_success:
        raise RuntimeError(f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}")
    return answer.json()
