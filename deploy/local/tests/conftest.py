"""Directories that PostgreSQL can use when root runs the tests, and ports that nothing else uses."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from omoios_local import ports
from omoios_local.embedded.process import scratch_directory


@pytest.fixture
def scratch() -> Iterator[Path]:
    with scratch_directory("omoios-test-") as directory:
        yield directory


@pytest.fixture(scope="session")
def free_offset() -> Callable[[], int]:
    """`free_offset()` → an offset whose every port is free now; another one at each call."""
    given: set[int] = set()

    def choose() -> int:
        # Two test processes start at different places, so that they rarely look at the same ports.
        for candidate in range(1000 + os.getpid() % 500, 12000, 517):
            plan = ports.PortPlan(candidate)
            claims = [claim for part in (*ports.FIXED, *ports.HTTP) for claim in plan.claims(part)]
            if candidate not in given and all(ports.is_free(claim.port) for claim in claims):
                given.add(candidate)
                return candidate
        raise RuntimeError("no free offset below 12000")

    return choose
