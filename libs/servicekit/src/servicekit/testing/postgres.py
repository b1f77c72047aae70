"""One PostgreSQL server per run, and databases cloned from templates that the real migrations built."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from omoios_local.embedded.postgres import EmbeddedPostgres
from omoios_local.embedded.process import EmbeddedPart, free_port
from servicekit.db import Database
from servicekit.db.migrate import migrations_of
from servicekit.ids import uuid7
from servicekit.settings import ServiceSettings
from servicekit.testing.run import TestRun

_PASSWORD = "test"


def shared_postgres(run: TestRun) -> EmbeddedPostgres:
    """Return the run's server, started by whichever worker asks first."""
    state = run.directory / "postgres.json"
    with run.lock("postgres"):
        if state.exists():
            return EmbeddedPostgres(run.directory / "postgres", json.loads(state.read_text())["port"], fsync=False)
        server = EmbeddedPostgres(run.directory / "postgres", free_port(), fsync=False)
        server.start(timeout_s=60)
        assert server.pid is not None
        run.record("postgres", server.pid)
        state.write_text(json.dumps({"port": server.port}))
        hand_over(server)
        return server


def hand_over(part: EmbeddedPart) -> None:
    """Let a server outlive this process: the other workers use it, and the run's reaper ends it."""
    atexit.unregister(part.stop)
    process, part._process = part._process, None
    if process is not None:
        # Python warns of a child that is neither waited for nor known to have ended.
        process.returncode = 0


@dataclass(frozen=True)
class TestDatabase:
    """A database of one test: `url` with the service's own role."""

    __test__ = False

    name: str
    service: str
    url: str

    def settings(self, **values: object) -> ServiceSettings:
        """Return settings that point at this database, with `values` on top."""
        return ServiceSettings(**({"env": "test", "database_url": self.url, "database_pool_size": 5} | values))

    @asynccontextmanager
    async def opened(self, **values: object) -> AsyncIterator[Database]:
        """Open a `Database` and close it at the end of the block."""
        database = Database(self.settings(**values))
        try:
            yield database
        finally:
            await database.close()


class Databases:
    """Makes databases for tests: `databases("workflow")`."""

    def __init__(self, run: TestRun, server: EmbeddedPostgres) -> None:
        self._run = run
        self._server = server
        self._made: list[str] = []

    def __call__(self, service: str, *, migrations: Path | None = None) -> TestDatabase:
        """Clone the service's template; `migrations` names another folder than `services/<service>/migrations`."""
        template = self._template(service, migrations)
        name = f"{service}_{uuid7().hex[-12:]}"
        self._server.create_database(name, service, template=template, extensions=())
        self._made.append(name)
        return TestDatabase(name, service, self._server.url(service, _PASSWORD, name))

    def empty(self, service: str) -> TestDatabase:
        """Make a database without any table but with the extensions, for tests of migrations."""
        with self._run.lock(f"template-{service}"):
            self._server.create_role(service, _PASSWORD)
        name = f"{service}_{uuid7().hex[-12:]}"
        self._server.create_database(name, service)
        self._made.append(name)
        return TestDatabase(name, service, self._server.url(service, _PASSWORD, name))

    def drop(self) -> None:
        """Drop what this object made."""
        made, self._made = self._made, []
        for name in made:
            self._server.drop_database(name)

    def _template(self, service: str, migrations: Path | None) -> str:
        template = f"template_{service}"
        done = self._run.directory / f"{template}.done"
        with self._run.lock(f"template-{service}"):
            if not done.exists():
                self._server.create_role(service, _PASSWORD)
                self._server.drop_database(template)
                self._server.create_database(template, service)
                migrate(service, self._server.url(service, _PASSWORD, template), migrations)
                done.touch()
        return template


def migrate(service: str, url: str, migrations: Path | None = None) -> None:
    """Run the real migration command in a process of its own; `RuntimeError` with its output when it fails."""
    environment = os.environ | {
        "OMOIOS_DATABASE_URL": url,
        "OMOIOS_MIGRATIONS": str(migrations or migrations_of(service)),
    }
    done = subprocess.run(
        [sys.executable, "-m", "servicekit.db.migrate", service],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"migrations of {service} failed:\n{done.stdout}{done.stderr}")
