"""Migrations: run once however many start, one head, and equal to the models."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from servicekit.db.migrate import config_for, single_head, upgrade
from servicekit.testing.checks import check_migrations
from servicekit.testing.postgres import Databases, migrate

MIGRATIONS = Path(__file__).parent / "migrations_fixture"


async def test_several_starting_at_once_migrate_once(database: Databases) -> None:
    target = database.empty("kit")
    assert set(await asyncio.gather(*(upgrade(target.url, MIGRATIONS) for _ in range(3)))) == {"0001"}
    async with target.opened() as db, db.reader() as tx:
        tables = await (await tx.connection()).fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
        )
    assert [row[0] for row in tables] == [
        "alembic_version",
        "idempotency_keys",
        "inbox",
        "items",
        "outbox",
        "replica_memberships",
        "replica_resources",
        "replica_revocations",
        "stream_readers",
        "things",
    ]


def test_the_command_says_where_it_got_to(database: Databases) -> None:
    target = database.empty("kit")
    migrate("kit", target.url, MIGRATIONS)
    with pytest.raises(RuntimeError, match="no_such_database"):
        migrate("kit", target.url.replace(target.name, "no_such_database"), MIGRATIONS)


async def test_a_migration_gives_way_when_its_lock_is_not_free(database: Databases, tmp_path: Path) -> None:
    target = database.empty("kit")
    folder = shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    (folder / "versions" / "0002_more.py").write_text(
        'from alembic import op\nrevision = "0002"\ndown_revision = "0001"\n\n'
        "def upgrade() -> None:\n    op.execute(\"SET LOCAL lock_timeout = '100ms'\")\n"
        '    op.execute("ALTER TABLE things ADD COLUMN more text")\n'
    )
    await upgrade(target.url, MIGRATIONS)
    async with target.opened() as db:
        blocker = await db.connect("blocker")
        async with blocker.transaction():
            await blocker.execute("SELECT FROM things")
            with pytest.raises(Exception, match="lock timeout"):
                await upgrade(target.url, folder)
        await blocker.close()
    assert await upgrade(target.url, folder) == "0002"


async def test_an_index_is_built_concurrently_while_others_wait_for_their_turn(
    database: Databases, tmp_path: Path
) -> None:
    target = database.empty("kit")
    folder = shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    (folder / "versions" / "0002_index.py").write_text(
        'from alembic import op\nrevision = "0002"\ndown_revision = "0001"\n\n'
        "def upgrade() -> None:\n    with op.get_context().autocommit_block():\n"
        '        op.create_index("ix_things_name", "things", ["name"], postgresql_concurrently=True)\n'
    )
    assert set(await asyncio.gather(*(upgrade(target.url, folder) for _ in range(3)))) == {"0002"}


def test_two_heads_are_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    assert single_head(config_for(folder)) == "0001"
    (folder / "versions" / "0001_other.py").write_text('revision = "0001b"\ndown_revision = None\n')
    with pytest.raises(RuntimeError, match="exactly one head"):
        single_head(config_for(folder))


def test_models_and_migrated_schema_agree_and_a_difference_is_named(database: Databases, tmp_path: Path) -> None:
    folder = shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    models = tmp_path / "planted_service.py"
    models.write_text(
        "from sqlalchemy import BigInteger, UniqueConstraint\nfrom sqlalchemy.orm import Mapped, mapped_column\n"
        "from servicekit.db import Base\nimport servicekit.auth.tables\n\n\n"
        "class Thing(Base):\n    __tablename__ = 'things'\n"
        "    __table_args__ = (UniqueConstraint('name', deferrable=True, initially='DEFERRED'),)\n"
        "    id: Mapped[str] = mapped_column(primary_key=True)\n    name: Mapped[str]\n"
        "    version: Mapped[int] = mapped_column(BigInteger)\n\n\n"
        "class Item(Base):\n    __tablename__ = 'items'\n"
        "    id: Mapped[str] = mapped_column(primary_key=True)\n    name: Mapped[str]\n"
        "    version: Mapped[int] = mapped_column(BigInteger)\n"
    )
    (folder / "env.py").write_text(
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport planted_service\n"
        "from servicekit.db import alembic_env\nalembic_env.run()\n"
    )
    check_migrations(database, "kit", folder)
    with models.open("a") as file:
        file.write("    forgotten: Mapped[str]\n")
    with pytest.raises(AssertionError, match="forgotten"):
        check_migrations(database, "kit", folder)


def test_the_command_refuses_without_an_address() -> None:
    import subprocess

    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMOIOS_DATABASE")}
    done = subprocess.run(
        [sys.executable, "-m", "servicekit.db.migrate", "kit"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "OMOIOS_DATABASE_URL" in done.stderr
