"""The callers and their rows, made once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.access import rows as _registered  # noqa: F401  # Its makers are found by name.
from tests.e2e.access.callers import Cast, cast
from tests.e2e.access.databases import Databases
from tests.e2e.access.rooms import Rooms, complete
from tests.e2e.world import World


@pytest.fixture(scope="session")
def databases(world: World) -> Iterator[Databases]:
    """The databases of the running stack."""
    found = Databases(world.client.stack().environments)
    yield found
    found.close()


@pytest.fixture(scope="session")
def everybody(world: World, databases: Databases) -> Cast:
    """Two tenants, people of all roles, machines, keys, and false credentials."""
    return cast(world, databases)


@pytest.fixture(scope="session")
def rooms(everybody: Cast) -> Rooms:
    """Makes the rows that recipes name."""
    found = Rooms(everybody)
    complete(found)
    return found
