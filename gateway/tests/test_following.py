"""The configuration follows the addresses that DNS gives for a service."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.tests.polling import eventually
from gateway_edge.following import Follower, addresses
from gateway_edge.recent import RECENT_S, STAMP, recent
from gateway_edge.routes import OWNERS, SERVICES
from gateway_edge.traefik_config import DEFAULT_PORTS, Options


class Names:
    """Stands for DNS: name → addresses, None where it fails."""

    def __init__(self) -> None:
        self.known: dict[str, list[str] | None] = {owner: [f"10.1.0.{n}"] for n, owner in enumerate(OWNERS, 1)}

    def lookup(self, host: str, port: int) -> list[str] | None:
        found = self.known[host]
        return None if found is None else sorted(f"{address}:{port}" for address in found)


def servers(directory: Path, service: str) -> list[str]:
    http = yaml.safe_load((directory / "dynamic" / "gateway.yml").read_text())["http"]
    found: dict[str, Any] = http["services"].get(f"{service}-instances") or http["services"][service]
    return [server["url"] for server in found["loadBalancer"]["servers"]]


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
def follower(tmp_path: Path, names: Names) -> Follower:
    found = Follower(tmp_path, options=Options(listen="", metrics_port=18008, metrics_host=""), lookup=names.lookup)
    assert found.look()
    return found


def test_each_instance_is_a_server_of_its_own(follower: Follower, names: Names, tmp_path: Path) -> None:
    port = DEFAULT_PORTS["workflow"]
    assert len(servers(tmp_path, "workflow")) == 1
    names.known["workflow"] = ["10.1.0.9", "10.1.0.2", "10.1.0.8"]
    assert follower.look()
    assert servers(tmp_path, "workflow") == [f"http://10.1.0.{n}:{port}" for n in (2, 8, 9)]
    names.known["workflow"] = ["10.1.0.8", "10.1.0.9", "10.1.0.2"]
    assert not follower.look(), "another order is no change"


def test_a_service_without_instances_is_answered_for_by_the_edge(
    follower: Follower, names: Names, tmp_path: Path
) -> None:
    names.known["billing"] = []
    assert follower.look()
    assert servers(tmp_path, "billing") == servers(tmp_path, "edge")


def test_a_failing_resolver_changes_nothing(follower: Follower, names: Names, tmp_path: Path) -> None:
    before = {name: servers(tmp_path, name) for name in SERVICES}
    names.known = dict.fromkeys(OWNERS)
    assert not follower.look()
    assert {name: servers(tmp_path, name) for name in SERVICES} == before


def test_a_name_that_takes_long_keeps_nobody_waiting(follower: Follower, names: Names, tmp_path: Path) -> None:
    answer = threading.Event()
    quick = names.lookup

    def slow(host: str, port: int) -> list[str] | None:
        if host == "billing":
            answer.wait(60)
        return quick(host, port)

    follower._lookup = slow
    names.known["workflow"] = ["10.1.0.8", "10.1.0.9"]
    names.known["billing"] = ["10.1.0.7"]
    try:
        assert follower.look()
        assert len(servers(tmp_path, "workflow")) == 2
        assert servers(tmp_path, "billing") == ["http://10.1.0.5:18105"], "what was known stays"
    finally:
        answer.set()
    eventually(follower.look, "the late answer is taken", 30.0)
    assert servers(tmp_path, "billing") == ["http://10.1.0.7:18105"]


def test_the_gateway_of_containers_listens_everywhere_and_can_be_asked_for_its_health(
    follower: Follower, tmp_path: Path
) -> None:
    static = yaml.safe_load((tmp_path / "traefik.yml").read_text())
    assert static["entryPoints"]["web"]["address"] == ":18000"
    assert static["ping"] == {"manualRouting": True, "entryPoint": "metrics"}
    http = yaml.safe_load((tmp_path / "dynamic" / "gateway.yml").read_text())["http"]
    assert http["routers"]["ping"]["entryPoints"] == ["metrics"]
    assert static["providers"]["file"]["directory"] == str(tmp_path / "dynamic")


def test_names_are_resolved_to_every_address() -> None:
    assert addresses("localhost", 18102) == ["127.0.0.1:18102"]
    assert addresses("127.0.0.3", 1) == ["127.0.0.3:1"]


def test_the_process_keeps_a_stamp_and_ends_on_sigterm(tmp_path: Path) -> None:
    """Names of services mean nothing on this machine, so every service is away; that is a configuration, too."""
    assert not recent(tmp_path)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    command = [sys.executable, "-m", "gateway_edge.following", str(tmp_path)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: recent(tmp_path), "it has looked once", 60.0)
        assert (tmp_path / "traefik.yml").is_file()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
    old = time.time() - RECENT_S - 1
    os.utime(tmp_path / STAMP, (old, old))
    assert not recent(tmp_path)
