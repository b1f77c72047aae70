"""The environment of every process of the stack, as `docs/conventions/servicekit.md` names it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from omoios_local.credentials import Credentials
from omoios_local.embedded.nats import EmbeddedNats
from omoios_local.embedded.postgres import EmbeddedPostgres
from omoios_local.embedded.process import LOOPBACK, base_environment
from omoios_local.embedded.redis import EmbeddedRedis, RedisUser
from omoios_local.ports import SERVICES, PortPlan
from omoios_local.state import State

# Named here because the supervisor itself reads them; they mean nothing to the processes that it starts.
OWN_SETTINGS = frozenset({"OMOIOS_STATE_DIR", "OMOIOS_PORT_OFFSET"})
KEEP_SECRETS_AT_REST = ("identity", "vcs")
# The gateway probes every second and looks twice; its configuration says so.
SHUTDOWN_DELAY_S = "2"
RUNNER_PREFIX = "OMOIOS_RUNNER_"


def operator_settings(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Settings that the person who starts the stack gives to the services, such as `OMOIOS_CORS_ORIGINS`."""
    source = os.environ if environment is None else environment
    return {
        name: value
        for name, value in source.items()
        if name.startswith("OMOIOS_") and not name.startswith(RUNNER_PREFIX) and name not in OWN_SETTINGS
    }


@dataclass
class Environments:
    """Builds environments from the ports and secrets of one stack. What the stack decides wins over the operator."""

    root: Path
    state: State
    plan: PortPlan
    credentials: Credentials
    operator: Mapping[str, str] = field(default_factory=dict)
    numbers: Callable[[str], list[int]] = lambda _: [1]
    """Service → numbers of the instances that exist now."""

    def service(self, name: str, instance: int = 1) -> dict[str, str]:
        """For `python -m <name>_service.main` and every tool that runs in a service's name.

        Secrets are handed over as files (`…_FILE`), so that no child process inherits one.
        """
        credentials = self.credentials
        postgres = EmbeddedPostgres(self.state.directory / "postgres", self.plan.fixed("postgres"))
        redis = EmbeddedRedis(self.state.directory / "redis", self.plan.fixed("redis"))
        database_url = postgres.url(name, credentials.database(name), name)
        redis_url = redis.url(RedisUser(name, credentials.redis(name)))
        data = self.state.data(name)
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        chosen = {
            "OMOIOS_HTTP_HOST": LOOPBACK,
            "OMOIOS_HTTP_PORT": str(self.plan.http(name, instance)),
            "OMOIOS_RPC_HOST": LOOPBACK,
            "OMOIOS_RPC_PORT": str(self.plan.rpc(name, instance)),
            "OMOIOS_EMBED_WORKER": "true",
            "OMOIOS_DATABASE_URL_FILE": str(credentials.database_url_file(name, database_url)),
            "OMOIOS_REDIS_URL_FILE": str(credentials.redis_url_file(name, redis_url)),
            "OMOIOS_SERVICE_SECRET_FILE": str(credentials.service_file(name)),
            "OMOIOS_RPC_TARGETS": json.dumps(self.rpc_targets()),
            "OMOIOS_DATA_DIR": str(data),
            "OMOIOS_SMTP_HOST": LOOPBACK,
            "OMOIOS_SMTP_PORT": str(self.plan.fixed("mail")),
            "OMOIOS_SMTP_SECURITY": "none",
            **self.nats(name),
            **self._addresses(),
        }
        chosen |= self._leave_slowly(name)
        if name in KEEP_SECRETS_AT_REST:
            chosen["OMOIOS_ENVELOPE_KEY_FILE"] = str(credentials.envelope_file)
        if name == "vcs":
            chosen["OMOIOS_REPOSITORY_ROOTS"] = json.dumps(self.repository_roots())
        if name == "identity":
            chosen["OMOIOS_SERVICE_SECRETS"] = json.dumps(credentials.service_digests())
        return self._base() | chosen

    def edge(self, instance: int = 1) -> dict[str, str]:
        """For `python -m gateway_edge.main`; the edge has neither a database nor a secret."""
        services = {
            name: [f"http://{LOOPBACK}:{self.plan.http(name, number)}" for number in self.numbers(name) or [1]]
            for name in SERVICES
        }
        return self._base() | {
            "OMOIOS_HTTP_HOST": LOOPBACK,
            "OMOIOS_HTTP_PORT": str(self.plan.http("edge", instance)),
            "OMOIOS_SERVICE_URLS": json.dumps(services),
            **self._leave_slowly("edge"),
            **self._addresses(),
        }

    def _leave_slowly(self, name: str) -> dict[str, str]:
        """One of several instances goes on serving until the gateway has left it out; an only one would be missed."""
        if "OMOIOS_SHUTDOWN_DELAY_S" in self.operator or len(self.numbers(name)) < 2:
            return {}
        return {"OMOIOS_SHUTDOWN_DELAY_S": SHUTDOWN_DELAY_S}

    def runner(self, instance: int, given: Mapping[str, str]) -> dict[str, str]:
        """For a runner: it knows the public address and what it was given, nothing of the stack's inside.

        `given`: `OMOIOS_RUNNER_*`, login included. Name and working directory are made different per instance.
        """
        kept = {name: value for name, value in given.items() if name.startswith(RUNNER_PREFIX)}
        name = {"OMOIOS_RUNNER_NAME": f"{kept.get('OMOIOS_RUNNER_NAME', 'local')}-{instance}"}
        own = {
            "OMOIOS_RUNNER_URL": self.public_url,
            "OMOIOS_RUNNER_WORKDIR": str(self.state.runner(instance)),
            # Commands may run as the user whose secrets these are.
            "OMOIOS_RUNNER_HIDDEN": json.dumps([str(self.state.directory)]),
        }
        return base_environment() | {"PYTHONUNBUFFERED": "1"} | own | kept | name

    def nats(self, user: str) -> dict[str, str]:
        """NATS address and login of a service, of `topology` or of `operator`."""
        password = str(self.credentials.nats_file(user))
        server = EmbeddedNats(self.state.directory / "nats", self.plan.fixed("nats"))
        return {"OMOIOS_NATS_URL": server.url, "OMOIOS_NATS_USER": user, "OMOIOS_NATS_PASSWORD_FILE": password}

    def tool(self, user: str) -> dict[str, str]:
        """For event tools that speak to NATS only, as `topology` or `operator`."""
        return self._base() | self.nats(user)

    def repository_roots(self) -> list[str]:
        """Folders whose repositories may be named by path.

        This clone, the state directory's own folder of clones, the operator's list, and those allowed since.
        """
        listed = json.loads(self.operator.get("OMOIOS_REPOSITORY_ROOTS", "[]"))
        if not isinstance(listed, list):
            raise ValueError("OMOIOS_REPOSITORY_ROOTS must be a JSON list of folders")
        own = (str(self.root), str(self.state.repositories))
        return list(dict.fromkeys([*own, *map(str, listed), *self.state.allowed_roots()]))

    def rpc_targets(self) -> dict[str, str]:
        """Service → gRPC target; several instances become one target that gRPC balances over.

        A process learns of instances that were added later when it is restarted.
        """
        return {name: self._rpc_target(name) for name in SERVICES}

    def _rpc_target(self, name: str) -> str:
        addresses = [f"{LOOPBACK}:{self.plan.rpc(name, number)}" for number in self.numbers(name) or [1]]
        return addresses[0] if len(addresses) == 1 else f"ipv4:///{','.join(addresses)}"

    @property
    def public_url(self) -> str:
        return f"http://{LOOPBACK}:{self.plan.fixed('gateway')}"

    def _addresses(self) -> dict[str, str]:
        return {
            "OMOIOS_PUBLIC_URL": self.public_url,
            "OMOIOS_JWKS_URL": " ".join(
                f"http://{LOOPBACK}:{self.plan.http('identity', number)}/.well-known/jwks.json"
                for number in self.numbers("identity") or [1]
            ),
        }

    def _base(self) -> dict[str, str]:
        return base_environment() | {"OMOIOS_ENV": "local"} | dict(self.operator) | {"PYTHONUNBUFFERED": "1"}
