"""SQL over a sealed column of any room, which hands its own column in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import inspect, select, update
from sqlalchemy.orm import InstrumentedAttribute

from servicekit.db import Tx

SealedColumn = InstrumentedAttribute[Any]
"""A column of a mapped class that holds sealed values."""


def key_of(column: SealedColumn) -> InstrumentedAttribute[Any]:
    """The primary key of the column's table, a single text column."""
    name = inspect(column.class_).primary_key[0].key
    found: InstrumentedAttribute[Any] = getattr(column.class_, str(name))
    return found


async def page(tx: Tx, column: SealedColumn, after: str | None, limit: int) -> Sequence[Any]:
    """Rows whose column holds something, by primary key, beyond `after`; an empty key is a key."""
    key = key_of(column)
    query = select(column.class_).where(column.is_not(None)).order_by(key).limit(limit)
    if after is not None:
        query = query.where(key > after)
    return (await tx.session.execute(query)).scalars().all()


async def swap(tx: Tx, column: SealedColumn, key: str, old: bytes, new: bytes) -> bool:
    """Replaces a value that is still the one that was read; False when somebody changed it meanwhile."""
    statement = update(column.class_).where(key_of(column) == key, column == old).values({column.key: new})
    done = await tx.session.execute(statement.returning(key_of(column)))
    return done.scalar_one_or_none() is not None
