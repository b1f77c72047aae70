"""`python -m servicekit.db.migrate <service>`: bring a service's database to the newest revision.

Reads `OMOIOS_DATABASE_URL`; `OMOIOS_MIGRATIONS` names another folder than `services/<service>/migrations`. Several may
start at once: an advisory lock lets one work while the others wait and then find nothing to do.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, pool, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

# Any constant serves, for advisory locks are per database; this one is "omoiosdb" read as a number.
MIGRATION_LOCK = 0x6F6D6F696F736462
LOCK_WAIT_S = 300
LOCK_POLL_S = 0.1

_log = logging.getLogger(__name__)


def migrations_of(service: str) -> Path:
    """Return the folder of a service's migrations: `OMOIOS_MIGRATIONS`, or the one found upwards from here."""
    given = os.environ.get("OMOIOS_MIGRATIONS")
    if given:
        return Path(given)
    roots = [Path.cwd(), *Path.cwd().parents, *Path(__file__).resolve().parents]
    for root in roots:
        folder = root / "services" / service / "migrations"
        if (folder / "env.py").is_file():
            return folder
    raise FileNotFoundError(f"no services/{service}/migrations above {Path.cwd()}; set OMOIOS_MIGRATIONS")


def config_for(folder: Path) -> Config:
    """Return alembic's configuration for a migrations folder; no .ini file is needed."""
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def single_head(config: Config) -> str:
    """Return the newest revision; `RuntimeError` when there are several or none."""
    heads = ScriptDirectory.from_config(config).get_heads()
    if len(heads) != 1:
        raise RuntimeError(f"migrations need exactly one head, these have {len(heads)}: {', '.join(heads)}")
    return heads[0]


async def _take(lock: AsyncConnection) -> None:
    """Take the advisory lock by asking for it again and again.

    A statement that waits keeps a snapshot, and CREATE INDEX CONCURRENTLY of the one who migrates waits for snapshots.
    """
    deadline = time.monotonic() + LOCK_WAIT_S
    while time.monotonic() < deadline:
        if await lock.scalar(text(f"SELECT pg_try_advisory_lock({MIGRATION_LOCK})")):
            return
        await asyncio.sleep(LOCK_POLL_S)
    raise TimeoutError(f"another migration holds the lock for {LOCK_WAIT_S} s")


async def upgrade(url: str, folder: Path) -> str:
    """Run every missing revision under the advisory lock; return the revision reached."""
    config = config_for(folder)
    head = single_head(config)
    engine = create_async_engine(
        url.replace("postgresql://", "postgresql+asyncpg://", 1),
        poolclass=pool.NullPool,
        connect_args={"timeout": 10, "server_settings": {"application_name": "migrate"}},
    )

    def work(connection: Connection) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    try:
        async with engine.connect() as opened, engine.connect() as connection:
            lock = await opened.execution_options(isolation_level="AUTOCOMMIT")
            await _take(lock)
            await connection.run_sync(work)
            await connection.commit()
            await lock.exec_driver_sql(f"SELECT pg_advisory_unlock({MIGRATION_LOCK})")
    finally:
        await engine.dispose()
    return head


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the process' exit code."""
    parser = argparse.ArgumentParser(prog="python -m servicekit.db.migrate", description=__doc__)
    parser.add_argument("service", help="name of the service, for example workflow")
    options = parser.parse_args(arguments)
    url = os.environ.get("OMOIOS_DATABASE_URL")
    url_file = os.environ.get("OMOIOS_DATABASE_URL_FILE")
    if not url and url_file:
        url = Path(url_file).read_text(encoding="utf-8").strip()
    if not url:
        print("OMOIOS_DATABASE_URL is not set", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    head = asyncio.run(upgrade(url, migrations_of(options.service)))
    print(f"{options.service}: at revision {head}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
