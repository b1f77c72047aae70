"""The pytest plugin of the kit; loaded by its entry point or with `-p servicekit.testing.plugin`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from omoios_local.embedded.postgres import EmbeddedPostgres
from servicekit.testing.network import block_outside_network
from servicekit.testing.postgres import Databases, shared_postgres
from servicekit.testing.run import TestRun

_RUN = pytest.StashKey[TestRun]()


def pytest_configure(config: pytest.Config) -> None:
    """Open the run and close the way to other machines."""
    config.stash[_RUN] = TestRun.open()
    block_outside_network()


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what the run started, also after Ctrl-C."""
    run = config.stash.get(_RUN, None)
    if run is not None:
        run.close()


@pytest.fixture(scope="session")
def test_run(request: pytest.FixtureRequest) -> TestRun:
    """Give the folder and the servers of this run."""
    return request.config.stash[_RUN]


@pytest.fixture(scope="session")
def postgres(test_run: TestRun) -> EmbeddedPostgres:
    """Give the PostgreSQL server of this run, shared by all workers."""
    return shared_postgres(test_run)


@pytest.fixture
def database(test_run: TestRun, postgres: EmbeddedPostgres) -> Iterator[Databases]:
    """Make fresh databases from the real migrations: `database("workflow").url`. Dropped after the test."""
    databases = Databases(test_run, postgres)
    yield databases
    databases.drop()
