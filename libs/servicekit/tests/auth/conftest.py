from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from servicekit.auth.testing import Signing
from servicekit.db import Database
from servicekit.testing.postgres import Databases

MIGRATIONS = Path(__file__).parent / "migrations_fixture"


class Clock:
    """A clock that a test moves."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock(time.time())


@pytest.fixture
def keypair() -> Signing:
    return Signing()


@pytest.fixture
async def access_db(database: Databases) -> AsyncIterator[Database]:
    """A database with the kit's tables."""
    async with database("access", migrations=MIGRATIONS).opened() as opened:
        yield opened
