"""The body of every service's `migrations/env.py`: `alembic_env.run(Base.metadata)`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from alembic import context
from sqlalchemy import Connection, MetaData, pool
from sqlalchemy.ext.asyncio import create_async_engine

import servicekit.db.tables  # noqa: F401  (registers the kit's tables)
from servicekit.db.base import Base, all_metadata

# A migration that cannot have its lock soon gives way to the traffic and is run again.
LOCK_TIMEOUT_S = 5

# These exist in every service but identity; their tables are registered wherever `servicekit.auth` is imported.
_OPTIONAL_TABLES = frozenset({"replica_memberships", "replica_revocations"})


def run(metadata: MetaData | Sequence[MetaData] = Base.metadata) -> None:
    """Run the migrations that alembic asks for against `OMOIOS_DATABASE_URL` or the connection that was handed over.

    `metadata` is what the tables are registered in; with `Base.metadata` that is every table imported by then.
    """
    given: Sequence[MetaData]
    if isinstance(metadata, MetaData):
        given = all_metadata() if metadata is Base.metadata else [*all_metadata(), metadata]
    else:
        given = metadata
    connection = context.config.attributes.get("connection")
    if connection is not None:
        migrate_on(connection, given)
        return
    url = context.config.get_main_option("sqlalchemy.url") or os.environ.get("OMOIOS_DATABASE_URL")
    if not url:
        raise RuntimeError("OMOIOS_DATABASE_URL is not set")
    asyncio.run(_migrate(url, given))


async def _migrate(url: str, metadata: Sequence[MetaData]) -> None:
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://", 1), poolclass=pool.NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(migrate_on, metadata)
    finally:
        await engine.dispose()


def migrate_on(connection: Connection, metadata: Sequence[MetaData]) -> None:
    """Run the migrations on an open connection, all of them in one transaction each."""
    context.configure(
        connection=connection,
        target_metadata=list(metadata),
        compare_type=True,
        compare_server_default=False,
        transaction_per_migration=True,
        include_object=_compared,
    )
    connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'")
    connection.commit()
    with context.begin_transaction():
        context.run_migrations()


def _compared(_item: Any, name: str | None, kind: str, _reflected: bool, other: Any) -> bool:
    """Leave an optional table out of comparisons unless both the models and the database have it."""
    return not (kind == "table" and name in _OPTIONAL_TABLES and other is None)
