"""The pytest plugin of the kit; loaded by its entry point or with `-p servicekit.testing.plugin`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from servicekit.testing import profiles
from servicekit.testing.network import block_outside_network
from servicekit.testing.run import TestRun

# What follows is imported by the fixtures that need it: a test without a database must not pay for SQLAlchemy.
if TYPE_CHECKING:
    from omoios_local.embedded.nats import EmbeddedNats
    from omoios_local.embedded.postgres import EmbeddedPostgres
    from omoios_local.embedded.redis import EmbeddedRedis
    from servicekit.testing.hosting import HostedSigning, ServiceHosts
    from servicekit.testing.outbox import OutboxRunner
    from servicekit.testing.postgres import Databases
    from servicekit.testing.rpc import RpcStubs

_RUN = pytest.StashKey[TestRun]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Open the run, close the way to other machines, and register the profiles before Hypothesis looks for its one."""
    profiles.register()
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
    from servicekit.testing.postgres import shared_postgres

    return shared_postgres(test_run)


@pytest.fixture
def database(test_run: TestRun, postgres: EmbeddedPostgres) -> Iterator[Databases]:
    """Make fresh databases from the real migrations: `database("workflow").url`. Dropped after the test."""
    from servicekit.testing.postgres import Databases

    databases = Databases(test_run, postgres)
    yield databases
    databases.drop()


@pytest.fixture(scope="session")
def nats_process(test_run: TestRun) -> Iterator[EmbeddedNats]:
    """Give the NATS server of this worker."""
    from servicekit.testing import brokers

    server = brokers.start_nats(test_run)
    yield server
    brokers.stop(test_run, server)


@pytest.fixture
def nats_server(nats_process: EmbeddedNats) -> EmbeddedNats:
    """Give a NATS server without any stream; `service_host` and `outbox_runner` make those that they need."""
    from servicekit.testing import brokers

    brokers.wiped(nats_process.url)
    return nats_process


@pytest.fixture(scope="session")
def redis_process(test_run: TestRun) -> Iterator[EmbeddedRedis]:
    """Give the Redis server of this worker."""
    from servicekit.testing import brokers

    server = brokers.start_redis(test_run)
    yield server
    brokers.stop(test_run, server)


@pytest.fixture
def redis_server(redis_process: EmbeddedRedis) -> EmbeddedRedis:
    """Give an empty Redis server."""
    from servicekit.testing import brokers

    brokers.flush_redis(redis_process)
    return redis_process


@pytest.fixture
def signing() -> HostedSigning:
    """Give a signing key whose JWKS the services of `service_host` trust."""
    from servicekit.testing.hosting import HostedSigning

    return HostedSigning()


@pytest.fixture
async def service_host(
    database: Databases, nats_server: EmbeddedNats, redis_server: EmbeddedRedis, signing: HostedSigning
) -> AsyncIterator[ServiceHosts]:
    """Start services: `running = await service_host(build, "workflow")`; ended after the test."""
    from servicekit.testing.hosting import ServiceHosts

    hosts = ServiceHosts(database, nats_server, redis_server, signing)
    yield hosts
    await hosts.close()


@pytest.fixture
async def outbox_runner(nats_server: EmbeddedNats) -> AsyncIterator[OutboxRunner]:
    """Drain outbox → JetStream → consumers until quiet: `await outbox_runner(running.service)`."""
    from servicekit.testing.outbox import OutboxRunner

    runner = OutboxRunner(nats_server.url)
    yield runner
    await runner.close()


@pytest.fixture
async def rpc_stub() -> AsyncIterator[RpcStubs]:
    """Stand for peers: `target = await rpc_stub(FakeVcs())` for a subclass of `VcsServiceServicer`."""
    from servicekit.testing.rpc import RpcStubs

    stubs = RpcStubs()
    yield stubs
    await stubs.close()


@pytest.fixture
def assert_problem() -> Any:
    """Give `servicekit.testing.problems.assert_problem`."""
    from servicekit.testing.problems import assert_problem

    return assert_problem
