from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from servicekit.db import Database
from servicekit.testing.postgres import Databases, TestDatabase

MIGRATIONS = Path(__file__).parents[1] / "db" / "migrations_fixture"


@pytest.fixture
def kit_database(database: Databases) -> TestDatabase:
    return database("kit", migrations=MIGRATIONS)


@pytest.fixture
async def db(kit_database: TestDatabase) -> AsyncIterator[Database]:
    async with kit_database.opened() as opened:
        yield opened
