"""New rows as objects of the session, at the price of a raw statement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar, cast

from sqlalchemy import Table
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.orm import make_transient_to_detached
from sqlalchemy.orm.attributes import instance_dict, manager_of_class

from servicekit.db.base import Base
from servicekit.db.transaction import Tx

Row = TypeVar("Row", bound=Base)
_Convert = Callable[[Any], Any] | None


@dataclass(frozen=True, slots=True)
class _Plan:
    """A statement, how each parameter is written, and how each column that the database fills is read."""

    text: str
    given: list[tuple[str, _Convert]]
    constant: dict[str, Any]
    generated: list[tuple[str, _Convert]]


async def insert_new(tx: Tx, table: type[Row], rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Insert rows with all the same columns, `id` included; return them in their order, as if they were just read.

    An INSERT … RETURNING of entities costs four times as much, because it gathers, sorts and loads what is known
    already. Raises asyncpg's own errors.
    """
    if not rows:
        return []
    plan = _plan(table, tuple(sorted(rows[0])))
    full = [{**plan.constant, **row} for row in rows]
    arguments = [[row[name] if write is None else write(row[name]) for name, write in plan.given] for row in full]
    answers = await (await tx.connection()).fetchmany(plan.text, arguments)
    manager = manager_of_class(table)
    found: list[Row] = []
    for row, answer in zip(full, answers, strict=True):
        for place, (name, read) in enumerate(plan.generated):
            row[name] = answer[place] if read is None else read(answer[place])
        item: Row = manager.new_instance()
        # What was just written is no change: it goes past the attributes' history.
        instance_dict(item).update(row)
        make_transient_to_detached(item)
        tx.session.add(item)
        found.append(item)
    return found


@cache
def _plan(table: type[Base], given: tuple[str, ...]) -> _Plan:
    """How rows with these columns are inserted. Raises TypeError for a default that Python computes."""
    made = cast("Table", table.__table__)
    constant: dict[str, Any] = {}
    generated = []
    for column in made.columns:
        if column.name in given:
            continue
        default: Any = column.default
        if default is not None and not default.is_scalar:
            raise TypeError(f"{made.name}.{column.name} is computed; give its value")
        if default is None and column.server_default is not None:
            generated.append(column)
        else:
            constant[column.name] = None if default is None else default.arg
    dialect = asyncpg_dialect()  # type: ignore[no-untyped-call]
    written = [made.c[name] for name in (*given, *constant)]
    quote = dialect.identifier_preparer.quote
    names = ", ".join(map(quote, map(attrgetter("name"), written)))
    numbers = ", ".join(f"${number}" for number in range(1, len(written) + 1))
    returning = ", ".join(map(quote, map(attrgetter("name"), generated))) or "1"
    types = {column.name: column.type.dialect_impl(dialect) for column in made.columns}
    return _Plan(
        f"INSERT INTO {quote(made.name)} ({names}) VALUES ({numbers}) RETURNING {returning}",
        [(column.name, types[column.name].bind_processor(dialect)) for column in written],
        constant,
        [(column.name, types[column.name].result_processor(dialect, None)) for column in generated],
    )
