"""Assertions on a service as a whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from servicekit.db.migrate import migrations_of
from servicekit.testing.postgres import Databases


def check_migrations(databases: Databases, service: str, migrations: Path | None = None) -> None:
    """Assert that a service's models equal what its migrations make of an empty database, with a single head.

    It runs in a process of its own, so that other services' tables imported here do not count.
    """
    environment = os.environ | {
        "OMOIOS_DATABASE_URL": databases.empty(service).url,
        "OMOIOS_MIGRATIONS": str(migrations or migrations_of(service)),
    }
    done = subprocess.run(
        [sys.executable, "-m", "servicekit.db.check", service],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(f"models and migrations of {service} differ:\n{done.stdout}{done.stderr}")
