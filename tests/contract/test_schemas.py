"""The tables that each service's code names are those that its migrations make."""

from __future__ import annotations

import pytest

from omoios_local.ports import SERVICES
from servicekit.testing.checks import check_migrations
from servicekit.testing.postgres import Databases


@pytest.mark.parametrize("service", SERVICES)
def test_models_are_what_migrations_make(database: Databases, service: str) -> None:
    check_migrations(database, service)
