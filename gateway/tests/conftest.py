"""A real Traefik in front of stand-ins for the services and the real edge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from gateway.tests.polling import answers, eventually
from gateway_edge.pending import Operation, parse_operations
from gateway_edge.routes import SERVICES
from gateway_edge.traefik_config import Options, render
from omoios_local.embedded.process import free_port
from omoios_local.embedded.traefik import EmbeddedTraefik

ROOT = Path(__file__).resolve().parents[2]
STANDIN = Path(__file__).with_name("standin.py")


# What the edge of these tests has in its list; a gateway without the list never asks it about them.
NOT_BUILT = (
    Operation("GET", "/api/v1/tickets/{ticket_id}"),
    Operation("POST", "/api/v1/tickets/{ticket_id}/block"),
    Operation("GET", "/ingest/{path}"),
    Operation("GET", "/api/v1/specs/{spec_id}/events"),
)


@dataclass
class Upstreams:
    """The processes behind the gateway: six stand-ins in one, and the edge."""

    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    pending_file: Path = field(default_factory=Path)

    def start(self, name: str, *instances: str) -> None:
        """Starts one process of stand-ins (``service:instance:port``) and waits until all of them answer."""
        self.start_all({name: list(instances)})

    def start_all(self, groups: dict[str, list[str]]) -> None:
        """Starts several processes at once: name → its stand-ins."""
        for name, instances in groups.items():
            self.processes[name] = subprocess.Popen([sys.executable, str(STANDIN), *instances])
        for instance in (instance for instances in groups.values() for instance in instances):
            url = f"http://127.0.0.1:{instance.rpartition(':')[2]}/readyz"
            eventually(lambda url=url: answers(url), f"{instance} answers", 30.0)  # type: ignore[misc]

    def start_edge(self, name: str, environment: str, pending_file: Path, *, delay_s: float = 0) -> int:
        """Starts an edge process for an environment; returns its port without waiting."""
        port = free_port()
        settings = {
            "OMOIOS_HTTP_PORT": str(port),
            "OMOIOS_ENV": environment,
            "OMOIOS_PENDING_FILE": str(pending_file),
            "OMOIOS_SHUTDOWN_DELAY_S": str(delay_s),
            "OMOIOS_SERVICE_URLS": json.dumps({key: f"http://127.0.0.1:{self.ports[key]}" for key in SERVICES}),
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        }
        command = [sys.executable, "-m", "gateway_edge.main"]
        self.processes[name] = subprocess.Popen(command, env={**os.environ, **settings}, stdout=subprocess.DEVNULL)
        return port

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(60)


@dataclass
class Gateway:
    """A running Traefik and what it was rendered from."""

    traefik: EmbeddedTraefik
    client: httpx2.Client
    directory: Path
    access_log: Path

    @property
    def url(self) -> str:
        return self.traefik.url


@pytest.fixture(scope="session")
def operations() -> list[Operation]:
    return parse_operations((ROOT / "tests/contract/operations.txt").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def upstreams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstreams]:
    """One instance of every service; an edge, and one that runs as in production."""
    pending_file = tmp_path_factory.mktemp("edge") / "pending.txt"
    pending_file.write_text("\n".join(map(str, NOT_BUILT)), encoding="utf-8")
    started = Upstreams({name: free_port() for name in SERVICES}, pending_file=pending_file)
    try:
        started.ports["edge"] = started.start_edge("edge", "local", pending_file)
        started.ports["strict-edge"] = started.start_edge("strict-edge", "production", pending_file)
        started.start("services", *(f"{name}:1:{started.ports[name]}" for name in SERVICES))
        for name in ("edge", "strict-edge"):
            url = f"http://127.0.0.1:{started.ports[name]}/readyz"
            eventually(lambda url=url: answers(url), f"{name} answers", 30.0)  # type: ignore[misc]
        yield started
    finally:
        started.stop()


class Gateways:
    """Starts gateways and stops them all at the end."""

    def __init__(self, upstreams: Upstreams, directory: Callable[[str], Path]) -> None:
        self.upstreams = upstreams
        self._directory = directory
        self._running: list[Gateway] = []

    def start(
        self,
        name: str,
        *,
        environment: str = "local",
        rate_limits: str = "loose",
        instances: dict[str, list[int | str]] | None = None,
        not_built: Sequence[Operation] = (),
        built: Sequence[Operation] = (),
    ) -> Gateway:
        """A gateway of its own directory that answers; nothing is pending unless it is said."""
        directory = self._directory(name)
        log = directory / "access.log"
        port = free_port()
        static = render(
            {"gateway": port, "limits": free_port(), **self.upstreams.ports},
            directory,
            environment=environment,
            instances=instances,
            options=Options(rate_limits=rate_limits, access_log=str(log)),
            not_built=not_built,
            built=built,
        )
        traefik = EmbeddedTraefik(directory, port, static_file=static, ready_path="/")
        traefik.start()
        gateway = Gateway(traefik, httpx2.Client(base_url=traefik.url, timeout=15.0), directory, log)
        self._running.append(gateway)
        return gateway

    def stop(self) -> None:
        for gateway in self._running:
            gateway.client.close()
            gateway.traefik.stop()


@pytest.fixture(scope="session")
def gateways(upstreams: Upstreams, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    made = Gateways(upstreams, lambda name: tmp_path_factory.mktemp(name))
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def gateway(gateways: Gateways) -> Gateway:
    """The gateway as it runs on one machine, with every operation built."""
    return gateways.start("gateway")


@pytest.fixture(scope="session")
def strict_gateway(gateways: Gateways) -> Gateway:
    """The gateway as it runs in production, with the contract's rate limits."""
    edge: list[int | str] = [gateways.upstreams.ports["strict-edge"]]
    return gateways.start("strict", environment="production", rate_limits="contract", instances={"edge": edge})
