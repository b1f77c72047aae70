"""One real stack for all journeys: embedded servers, six services, the gateway; on free ports, with data of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from xdist.scheduler import LoadScopeScheduling

from omoios_local import ports
from omoios_local.client import StackClient
from omoios_local.embedded.process import scratch_directory
from tests.e2e.world import Tenant, World

# A lease as short as it may be, so that a dead runner is noticed within seconds.
SETTINGS = {"OMOIOS_TASK_LEASE_S": "10", "OMOIOS_SANDBOX_HEARTBEAT_INTERVAL_S": "1"}


# Processes of pytest-xdist that look at the same moment must not find the same ports.
OFFSETS_OF_WORKER = 5000


class TwoStacks(LoadScopeScheduling):
    """Two halves, each on a stack of its own: who may do what, and the journeys."""

    def _split_scope(self, nodeid: str) -> str:
        return "access" if nodeid.startswith("tests/e2e/access/") else "journeys"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> TwoStacks | None:
    """Shares the tests out to processes; a half stays in one, in its order."""
    return TwoStacks(config, log) if config.getvalue("dist") == "loadscope" else None


def free_offset() -> int:
    """An offset whose every port is free now."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 2
    start = 1000 + worker * OFFSETS_OF_WORKER
    for candidate in range(start + os.getpid() % 500, start + OFFSETS_OF_WORKER, 517):
        plan = ports.PortPlan(candidate)
        claims = [claim for part in (*ports.FIXED, *ports.HTTP) for claim in plan.claims(part)]
        if all(ports.is_free(claim.port) for claim in claims):
            return candidate
    raise RuntimeError(f"no free offset below {start + OFFSETS_OF_WORKER}")


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """The stack, up and ready; taken down and deleted at the end."""
    with scratch_directory("omoios-e2e-") as directory, pytest.MonkeyPatch.context() as patch:
        state = directory / "state"
        offset = free_offset()
        for name, value in SETTINGS.items() | {("OMOIOS_STATE_DIR", str(state)), ("OMOIOS_PORT_OFFSET", str(offset))}:
            patch.setenv(name, value)
        client = StackClient.here()
        try:
            client.up()
            with httpx2.Client(base_url=client.stack().environments.public_url, timeout=60, trust_env=False) as http:
                made = World(client, http, directory)
                yield made
                for runner in made.runners:
                    runner.end()
        finally:
            keep = os.environ.get("OMOIOS_E2E_KEEP_LOGS")
            if keep:
                # For looking into a failure: whoever runs the tests names the folder, which gets one of each stack.
                with contextlib.suppress(OSError):
                    shutil.copytree(state / "logs", Path(keep) / directory.name / "logs")
            with contextlib.suppress(Exception):
                client.down()
            client.state.delete()


@pytest.fixture(scope="session")
def first(world: World) -> Tenant:
    """A tenant that the journeys share which change nothing of it."""
    return world.tenant()


@pytest.fixture(scope="session")
def other(world: World) -> Tenant:
    """Another tenant."""
    return world.tenant()


@pytest.fixture(autouse=True)
def _no_runner_left(world: World) -> Iterator[None]:
    """A runner belongs to one journey."""
    yield
    while world.runners:
        world.runners.pop().end()
