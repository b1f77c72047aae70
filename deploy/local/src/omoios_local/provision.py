"""What must be done before services start: roles and databases, migrations, the NATS topology."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from omoios_local.credentials import Credentials
from omoios_local.embedded.postgres import EmbeddedPostgres
from omoios_local.state import State


@dataclass(frozen=True)
class DatabaseSpec:
    name: str
    extensions: tuple[str, ...]


def databases(root: Path) -> list[DatabaseSpec]:
    """The entries of `deploy/postgres/databases.toml`."""
    content = tomllib.loads((root / "deploy" / "postgres" / "databases.toml").read_text())
    return [DatabaseSpec(entry["name"], tuple(entry["extensions"])) for entry in content["databases"]]


def create_databases(root: Path, postgres: EmbeddedPostgres, credentials: Credentials, only: str | None = None) -> str:
    """Make every role and database that is missing and set each role's password from its secret."""
    script = (root / "deploy" / "postgres" / "database.sql").read_text()
    chosen = [spec for spec in databases(root) if only in (None, spec.name)]
    for spec in chosen:
        postgres.execute(script, variables={"service": spec.name, "password": credentials.database(spec.name)})
        if spec.extensions:
            # The owner of a database may not install pgvector's operator classes; the superuser does it for him.
            postgres.execute(
                "".join(f'CREATE EXTENSION IF NOT EXISTS "{name}";' for name in spec.extensions), spec.name
            )
    return f"{len(chosen)} databases"


@dataclass(frozen=True)
class Migrations:
    """Runs a service's migrations, or finds that there is nothing to run without starting Python for it.

    After a run, the digest of the migration files and the revision reached are kept; both must still hold, the
    revision as the database itself tells it.
    """

    root: Path
    state: State
    postgres: EmbeddedPostgres

    def run(self, service: str, environment: Mapping[str, str]) -> str:
        folder = self.root / "services" / service / "migrations"
        if not folder.is_dir():
            raise RuntimeError(f"services/{service}/migrations is missing")
        digest = digest_of(folder)
        marker = self.state.migrated / f"{service}.json"
        known = self.state.read(marker)
        revision = self.revision(service)
        if revision and known == {"files": digest, "revision": revision}:
            return f"already at {revision}"
        run_module("servicekit.db.migrate", [service], environment, self.root)
        reached = self.revision(service)
        self.state.write(marker, {"files": digest, "revision": reached})
        return f"{revision or 'empty'} → {reached}"

    def revision(self, service: str) -> str:
        """The revision that alembic recorded; empty where the database has none."""
        query = "SELECT to_regclass('public.alembic_version') IS NOT NULL"
        if self.postgres.execute(query, service) != "t":
            return ""
        return self.postgres.execute("SELECT version_num FROM alembic_version", service)


def digest_of(folder: Path) -> str:
    """SHA-256 over names and contents of the Python files of a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run_module(
    module: str, arguments: list[str], environment: Mapping[str, str], cwd: Path, timeout_s: float = 300.0
) -> str:
    """Run `python -m module` to its end and return its output. Raises RuntimeError with the end of it on failure."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, *arguments],
        env=dict(environment),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    if done.returncode != 0:
        end = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise RuntimeError(f"python -m {module} {' '.join(arguments)} ended with {done.returncode}:\n{end}")
    return done.stdout.strip()
