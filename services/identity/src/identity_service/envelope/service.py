"""Sealing anew under the present key what an earlier one sealed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from identity_service.envelope import store
from identity_service.envelope.rules import Envelope
from servicekit.db import Database

_BATCH = 200


async def reseal(db: Database, envelope: Envelope, column: store.SealedColumn, purpose: Callable[[Any], str]) -> int:
    """Brings every value of a sealed column under the first key, while others work; returns how many were not.

    Raises SealBroken for a value that no key opens.
    """
    key_name, done = store.key_of(column).key, 0
    after: str | None = None
    while True:
        async with db.uow() as tx:
            rows = await store.page(tx, column, after, _BATCH)
            for row in rows:
                old = getattr(row, column.key)
                new = envelope.resealed(old, purpose(row))
                # A value that was changed meanwhile is under the first key: those who write have no other.
                if new is not None and await store.swap(tx, column, getattr(row, key_name), old, new):
                    done += 1
        if len(rows) < _BATCH:
            return done
        after = getattr(rows[-1], key_name)
