"""The whole stack as data: every part and step, what each needs, and where it listens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from omoios_local.credentials import Credentials
from omoios_local.embedded.nats import EmbeddedNats, NatsUser, service_user
from omoios_local.embedded.postgres import EmbeddedPostgres
from omoios_local.embedded.process import LOOPBACK, base_environment
from omoios_local.embedded.redis import EmbeddedRedis, RedisUser
from omoios_local.environment import RUNNER_PREFIX, Environments
from omoios_local.parts import GatewayPart, MailPart, PythonPart, RunnerPart
from omoios_local.ports import HTTP, SERVICES, PortClaim, PortPlan
from omoios_local.provision import Migrations, create_databases, run_module
from omoios_local.runnable import PartSpec, StepSpec
from omoios_local.state import State

TOPOLOGY_USER = "topology"
OPERATOR_USER = "operator"


@dataclass
class Stack:
    """One embedded stack of one clone: builds parts, steps and environments from its state directory and ports."""

    root: Path
    state: State
    plan: PortPlan
    operator: Mapping[str, str] = field(default_factory=dict)
    runner_settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.credentials = Credentials(self.state.secrets)
        self.environments = Environments(self.root, self.state, self.plan, self.credentials, self.operator)
        self.postgres = EmbeddedPostgres(self.state.directory / "postgres", self.plan.fixed("postgres"))
        self.numbers: Callable[[str], list[int]] = lambda _: [1]
        self.environments.numbers = lambda name: self.numbers(name)
        self.gateway = GatewayPart(self.state.directory / "traefik", self.plan, self.http_instances, self.operator)

    def http_instances(self) -> dict[str, list[int]]:
        """HTTP ports of every instance of the services and the edge."""
        return {name: [self.plan.http(name, number) for number in self.numbers(name) or [1]] for name in HTTP}

    def specs(self) -> list[PartSpec | StepSpec]:
        """Every part and step, infrastructure first."""
        specs: list[PartSpec | StepSpec] = [
            self._fixed("postgres", lambda _: self.postgres),
            self._fixed("nats", lambda _: self.nats()),
            self._fixed("redis", lambda _: self.redis()),
            self._fixed("mail", lambda _: self.mail()),
            StepSpec("databases", self._create_databases, ("postgres",)),
            StepSpec("topology", self._apply_topology, ("nats",)),
        ]
        specs += [StepSpec(f"migrate-{name}", self._migrate(name), ("databases",)) for name in SERVICES]
        specs += [self._service(name) for name in SERVICES]
        specs += [self._edge(), self._gateway(), self._runner()]
        return specs

    def mail(self) -> MailPart:
        page = (self.plan.page("mail"), self.credentials.mail_page_file)
        return MailPart(self.plan.fixed("mail"), self.state.mail, *page, base_environment)

    @property
    def mail_page_url(self) -> str:
        """The page with the mails of this stack, its key included: for the eyes of whoever owns the stack."""
        return f"http://{LOOPBACK}:{self.plan.page('mail')}/?key={self.credentials.mail_page_file.read_text()}"

    def nats(self) -> EmbeddedNats:
        users = [service_user(name, self.credentials.nats(name), SERVICES) for name in SERVICES]
        # The topology job and the operator's tools manage streams, read everything and replay dead letters.
        users += [NatsUser(name, self.credentials.nats(name)) for name in (TOPOLOGY_USER, OPERATOR_USER)]
        return EmbeddedNats(self.state.directory / "nats", self.plan.fixed("nats"), users=users)

    def redis(self) -> EmbeddedRedis:
        users = [RedisUser(name, self.credentials.redis(name)) for name in SERVICES]
        return EmbeddedRedis(self.state.directory / "redis", self.plan.fixed("redis"), users=users)

    def _claims(self, name: str) -> Callable[[int], list[PortClaim]]:
        return lambda number: self.plan.claims(name, number)

    def _fixed(
        self, name: str, make: Callable[[int], EmbeddedPostgres | EmbeddedNats | EmbeddedRedis | MailPart]
    ) -> PartSpec:
        return PartSpec(name, make, claims=self._claims(name))

    def _service(self, name: str) -> PartSpec:
        def make(number: int) -> PythonPart:
            return PythonPart(
                f"{name}_service.main",
                self.plan.http(name, number),
                lambda: self.environments.service(name, number),
                self.state.data(name),
            )

        needs = (f"migrate-{name}", "topology", "redis")
        return PartSpec(name, make, needs, self._claims(name), scalable=True)

    def _edge(self) -> PartSpec:
        def make(number: int) -> PythonPart:
            port = self.plan.http("edge", number)
            return PythonPart(
                "gateway_edge.main", port, lambda: self.environments.edge(number), self.state.data("edge")
            )

        return PartSpec("edge", make, (), self._claims("edge"), scalable=True)

    def _gateway(self) -> PartSpec:
        return PartSpec("gateway", lambda _: self.gateway, ("edge",), self._claims("gateway"), SERVICES)

    def _runner(self) -> PartSpec:
        def make(number: int) -> RunnerPart:
            return RunnerPart(
                "agents_service.runners.main",
                lambda: self.environments.runner(number, self.runner_settings),
                self.state.runner(number),
            )

        return PartSpec("runner", make, ("gateway", *SERVICES), instances=0, scalable=True)

    def _create_databases(self) -> str:
        return create_databases(self.root, self.postgres, self.credentials)

    def _migrate(self, name: str) -> Callable[[], str]:
        migrations = Migrations(self.root, self.state, self.postgres)
        return lambda: migrations.run(name, self.environments.service(name))

    def _apply_topology(self) -> str:
        run_module("servicekit.events.topology", ["apply"], self.environments.tool(TOPOLOGY_USER), self.root)
        return "streams and durables applied"

    def give_runner_settings(self, given: Mapping[str, str]) -> None:
        """Settings that the next started runners get (`OMOIOS_RUNNER_*`), token included."""
        self.runner_settings = {name: value for name, value in given.items() if name.startswith(RUNNER_PREFIX)}
