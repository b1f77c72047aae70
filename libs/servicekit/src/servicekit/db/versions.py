"""Optimistic locking: a row's `version` grows with each change, and a writer names the one it has read."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Update, update
from sqlalchemy.orm import InstrumentedAttribute

from servicekit.db.failures import STALE_VERSION
from servicekit.db.transaction import Tx


async def update_versioned(
    tx: Tx, table: type[Any], *where: ColumnElement[bool], expected_version: int | None, values: dict[str, Any]
) -> int:
    """Update the one row that `where` names, count its version up and return the new one.

    `expected_version` None updates whatever version is there. Raises `STALE_VERSION` (409) when the row has another
    version or is gone.
    """
    version: InstrumentedAttribute[int] = table.version
    statement: Update = update(table).where(*where).values(**values, version=version + 1)
    if expected_version is not None:
        statement = statement.where(version == expected_version)
    row = (await tx.session.execute(statement.returning(version))).one_or_none()
    if row is None:
        raise STALE_VERSION()
    return int(row[0])
