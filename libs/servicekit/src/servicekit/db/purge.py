"""Clock work that keeps the kit's tables small."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from servicekit.clock import utc_now
from servicekit.db.idempotency import KEEP_HOURS
from servicekit.jobs import Job

if TYPE_CHECKING:
    from servicekit.db.engine import Database
    from servicekit.settings import ServiceSettings

# Few enough rows that one statement holds its locks and its place in the log for milliseconds.
_BATCH = 5_000
_EVERY_S = 300.0

# Ids are made before their events are handled, so that what was made late enough needs no look.
# Sequence order is nearly time order: looking at the oldest rows only keeps the statement off the rest of the table.
_PURGE_OUTBOX = """
DELETE FROM outbox WHERE seq IN (
    SELECT seq FROM (SELECT seq, published_at FROM outbox ORDER BY seq LIMIT $2) AS oldest
    WHERE published_at < now() - $1::interval)
"""
_PURGE_INBOX = """
DELETE FROM inbox WHERE (event_id, consumer) IN (
    SELECT event_id, consumer FROM inbox WHERE event_id < $1 AND handled_at < $2
    ORDER BY event_id, consumer LIMIT $3)
"""
_PURGE_KEYS = """
DELETE FROM idempotency_keys WHERE (scope, key) IN (
    SELECT scope, key FROM idempotency_keys WHERE claimed_at < now() - $1::interval ORDER BY claimed_at LIMIT $2)
"""


def first_id_of(moment: datetime) -> UUID:
    """Return the smallest UUIDv7 of a moment; every id made earlier is smaller."""
    return UUID(int=(int(moment.timestamp() * 1000) << 80) | (0x7 << 76) | (0b10 << 62))


async def purge_outbox(database: Database, days: int) -> int:
    """Delete rows published more than this many days ago; return how many."""
    return await _purge(database, _PURGE_OUTBOX, timedelta(days=days))


async def purge_inbox(database: Database, days: int) -> int:
    """Delete rows of events that were told last more than this many days ago; return how many."""
    moment = utc_now() - timedelta(days=days)
    return await _purge(database, _PURGE_INBOX, first_id_of(moment), moment)


async def purge_idempotency_keys(database: Database) -> int:
    """Delete keys claimed more than 24 hours ago; return how many."""
    return await _purge(database, _PURGE_KEYS, timedelta(hours=KEEP_HOURS))


async def _purge(database: Database, statement: str, *limits: object) -> int:
    total = 0
    while True:
        async with database.uow() as tx:
            status: str = await (await tx.connection()).execute(statement, *limits, _BATCH)
        deleted = int(status.rpartition(" ")[2])
        total += deleted
        if deleted < _BATCH:
            return total


def purge_jobs(database: Database, settings: ServiceSettings) -> list[Job]:
    """Return the jobs that every service's worker runs for the kit's tables."""
    return [
        Job("purge-outbox", every_s=_EVERY_S, run=lambda: purge_outbox(database, settings.outbox_days), leader=True),
        Job("purge-inbox", every_s=_EVERY_S, run=lambda: purge_inbox(database, settings.inbox_days), leader=True),
        Job("purge-idempotency-keys", every_s=_EVERY_S, run=lambda: purge_idempotency_keys(database), leader=True),
    ]
