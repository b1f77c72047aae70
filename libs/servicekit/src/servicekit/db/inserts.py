"""New rows as objects of the session, at the price of a statement of SQLAlchemy Core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar, cast

from sqlalchemy import Table, insert
from sqlalchemy.orm import make_transient_to_detached
from sqlalchemy.sql.dml import ReturningInsert

from servicekit.db.base import Base
from servicekit.db.transaction import Tx

Row = TypeVar("Row", bound=Base)


async def insert_new(tx: Tx, table: type[Row], rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Insert rows with all the same columns, `id` included; return them in their order, as if they were just read.

    An INSERT … RETURNING of entities costs twice as much, because it gathers, sorts and loads what is known already.
    """
    if not rows:
        return []
    statement, generated, absent = _plan(table, tuple(sorted(rows[0])))
    made = {row[0]: row for row in await tx.session.execute(statement, [dict(row) for row in rows])}
    found: list[Row] = []
    for row in rows:
        answer = made[row["id"]]
        item = table(**row, **absent, **{name: answer[place] for place, name in enumerate(generated, 1)})
        make_transient_to_detached(item)
        tx.session.add(item)
        found.append(item)
    return found


@cache
def _plan(table: type[Base], given: tuple[str, ...]) -> tuple[ReturningInsert[Any], list[str], dict[str, None]]:
    """The statement, the columns that it reads back after `id`, and those that stay NULL."""
    columns = table.__table__.c
    rest = [column for column in table.__table__.columns if column.name not in given]
    generated = [column.name for column in rest if column.server_default is not None or column.default is not None]
    absent = dict.fromkeys(column.name for column in rest if column.name not in generated)
    statement = insert(cast("Table", table.__table__)).returning(columns.id, *(columns[name] for name in generated))
    return statement, generated, absent
