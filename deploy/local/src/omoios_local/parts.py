"""The processes of the stack that are not infrastructure: services, edge, gateway, runners, SMTP sink."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from omoios_local.embedded.process import Command, exchange
from omoios_local.embedded.traefik import EmbeddedTraefik
from omoios_local.ports import HTTP, PortPlan


@dataclass(frozen=True)
class PythonPart:
    """`python -m <module>`, ready when `path` answers 200 on `port`."""

    module: str
    port: int
    environment: Callable[[], dict[str, str]]
    """Built at every start, because ports of other parts may have changed."""
    cwd: Path
    path: str = "/readyz"

    def prepare(self) -> None:
        """Raises RuntimeError when the module is not installed."""
        require_module(self.module)
        self.cwd.mkdir(parents=True, exist_ok=True, mode=0o700)

    def command(self) -> Command:
        # -P keeps the working directory off the import path.
        return Command((sys.executable, "-P", "-m", self.module), self.environment(), self.cwd)

    def ready(self) -> bool:
        request = f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        answer = exchange(self.port, request.encode(), timeout_s=1.0).split(None, 2)
        return len(answer) > 1 and answer[0].startswith(b"HTTP/") and answer[1] == b"200"


@dataclass(frozen=True)
class RunnerPart:
    """A runner: it has no port, so it is ready once it has been started. Its folder is `OMOIOS_RUNNER_WORKDIR`."""

    module: str
    environment: Callable[[], dict[str, str]]
    cwd: Path

    def prepare(self) -> None:
        require_module(self.module)
        self.cwd.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)

    def command(self) -> Command:
        return Command((sys.executable, "-P", "-m", self.module), self.environment(), self.cwd)

    def ready(self) -> bool:
        return True


@dataclass(frozen=True)
class MailPart:
    """The SMTP sink and the page that shows its mails, ready when it greets."""

    port: int
    directory: Path
    page_port: int
    key_file: Path
    environment: Callable[[], dict[str, str]]

    def prepare(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def command(self) -> Command:
        argv = (sys.executable, "-P", "-m", "omoios_local.mail", str(self.port), str(self.directory))
        return Command((*argv, str(self.page_port), str(self.key_file)), self.environment(), self.directory)

    def ready(self) -> bool:
        greets = exchange(self.port, b"").startswith(b"220")
        return greets and exchange(self.page_port, b"GET / HTTP/1.0\r\n\r\n", timeout_s=1.0).startswith(b"HTTP/")


class GatewayPart(EmbeddedTraefik):
    """Traefik with the configuration that the gateway's own package renders for the instances that exist now."""

    name = "gateway"

    def __init__(
        self,
        directory: Path,
        plan: PortPlan,
        instances: Callable[[], Mapping[str, list[int]]],
        settings: Mapping[str, str],
    ) -> None:
        super().__init__(directory, plan.fixed("gateway"), static_file=directory / "traefik.yml", ready_path="/")
        self._plan = plan
        self._instances = instances
        self._settings = settings

    def prepare(self) -> None:
        """Render static and dynamic files; a running Traefik follows the dynamic ones by itself."""
        require_module("gateway_edge.traefik_config")
        from gateway_edge import traefik_config

        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        environment = self._settings.get("OMOIOS_ENV", "local")
        limits = self._settings.get("OMOIOS_RATE_LIMITS", "contract" if environment == "production" else "loose")
        limits_port = self._plan.page("gateway")
        ports = {"gateway": self.port, "limits": limits_port, **{name: self._plan.http(name) for name in HTTP}}
        rendered = traefik_config.render(
            ports,
            self.directory,
            environment=environment,
            instances=self._instances(),
            options=traefik_config.Options(rate_limits=limits),
        )
        if rendered != self.static_file:
            raise RuntimeError(f"the gateway was rendered to {rendered}, expected {self.static_file}")


def require_module(name: str) -> None:
    """Raises RuntimeError when a module cannot be found."""
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise RuntimeError(f"module {name} is not installed in {os.path.dirname(sys.executable)}; run `make install`")
