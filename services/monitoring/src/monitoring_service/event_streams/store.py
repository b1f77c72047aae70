"""SQL of the event log."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from servicekit.db import Tx

CHANNEL = "monitoring_log"
"""NOTIFY channel without a payload: the log grew."""

# The row of the head stays locked until the commit, so that the next writer's numbers are greater and visible later.
_APPEND = """
WITH head AS (
    UPDATE event_log_head SET last_sequence = last_sequence + $1 RETURNING last_sequence - $1 AS base
)
INSERT INTO event_log (
    last_sequence, first_sequence, logged_at, event_id, subject, aggregate_type, aggregate_id, version,
    organization_id, correlation_id, causation_id, occurred_at, size, payload)
SELECT head.base + e.upto, head.base + e.upto - e.width + 1, clock_timestamp(), e.event_id, e.subject,
    e.aggregate_type, e.aggregate_id, e.version, e.organization_id, e.correlation_id, e.causation_id, e.occurred_at,
    octet_length(e.payload), e.payload
FROM head, unnest(
    $2::bigint[], $3::bigint[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::text[], $10::text[],
    $11::text[], $12::timestamptz[], $13::bytea[]
) AS e (upto, width, event_id, subject, aggregate_type, aggregate_id, version, organization_id, correlation_id,
    causation_id, occurred_at, payload)
"""
# One statement, hence one snapshot: every event up to the head that it sees is in what it reads.
_READ = """
WITH head AS MATERIALIZED (
    SELECT {upto} AS upto FROM event_log_head
), following AS ({following}
)
SELECT head.upto, e.*
FROM head
LEFT JOIN (
    SELECT * FROM (
        SELECT *, sum(size) OVER (ORDER BY last_sequence) - size AS before, count(*) OVER () AS found FROM following
    ) AS measured
    WHERE before < $4
) AS e ON true
ORDER BY e.last_sequence
"""
_COLUMNS = "last_sequence, first_sequence, subject, organization_id, occurred_at, size, payload"
# Near the end of the log: the few numbers since the last look, whoever they belong to.
_TAIL = _READ.format(
    upto="least(last_sequence, $1::bigint + $5::bigint)",
    following=f"""
    SELECT {_COLUMNS} FROM event_log, head
    WHERE last_sequence > $1 AND last_sequence <= head.upto AND organization_id = ANY ($2::text[])
    ORDER BY last_sequence LIMIT $3""",
)
# Far back: each organization's events by their own index, for a small one may have few among millions.
_PAST = _READ.format(
    upto="last_sequence",
    following=f"""
    SELECT part.* FROM unnest($2::text[]) AS asked (id), head, LATERAL (
        SELECT {_COLUMNS} FROM event_log
        WHERE organization_id = asked.id AND last_sequence > $1 AND last_sequence <= head.upto
        ORDER BY last_sequence LIMIT $3
    ) AS part
    ORDER BY part.last_sequence LIMIT $3""",
)
_HEAD = "SELECT last_sequence FROM event_log_head"
_NEXT = """
SELECT first_sequence, logged_at < clock_timestamp() - make_interval(secs => $2) AS too_old
FROM event_log WHERE last_sequence > $1 ORDER BY last_sequence LIMIT 1
"""
_PARTITIONS = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'event_log'::regclass
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One event to be logged; `width` is how many numbers it takes."""

    width: int
    event_id: str
    subject: str
    aggregate_type: str
    aggregate_id: str
    version: int
    organization_id: str | None
    correlation_id: str | None
    causation_id: str | None
    occurred_at: datetime
    payload: bytes


@dataclass(frozen=True, slots=True)
class Logged:
    """One event of the log, as its readers need it."""

    first_sequence: int
    last_sequence: int
    subject: str
    organization_id: str
    occurred_at: datetime
    payload: bytes


@dataclass(frozen=True, slots=True)
class LogPage:
    """Events in the order of the log; everything of the asked organizations up to `upto` is in it.

    `more`: there was more than fitted, `upto` is then the last event's number.
    """

    events: Sequence[Logged]
    upto: int
    more: bool


async def append(tx: Tx, entries: Sequence[Entry]) -> None:
    """Adds events in their order; other writers wait until this transaction ends."""
    upto: list[int] = []
    total = 0
    for entry in entries:
        total += entry.width
        upto.append(total)
    columns: list[list[Any]] = [
        [entry.width for entry in entries],
        [entry.event_id for entry in entries],
        [entry.subject for entry in entries],
        [entry.aggregate_type for entry in entries],
        [entry.aggregate_id for entry in entries],
        [entry.version for entry in entries],
        [entry.organization_id for entry in entries],
        [entry.correlation_id for entry in entries],
        [entry.causation_id for entry in entries],
        [entry.occurred_at for entry in entries],
        [entry.payload for entry in entries],
    ]
    await (await tx.connection()).execute(_APPEND, total, upto, *columns)


async def tail(tx: Tx, after: int, organizations: Collection[str], limit: int, size_max: int, window: int) -> LogPage:
    """What follows a number near the head: of the next `window` numbers, at most `limit` events and `size_max` bytes.

    The last event may go beyond the bytes, so that there always is one.
    """
    rows = await (await tx.connection()).fetch(_TAIL, after, list(organizations), limit, size_max, window)
    return _page(rows, after, limit)


async def past(tx: Tx, after: int, organizations: Collection[str], limit: int, size_max: int) -> LogPage:
    """What follows a number that may be far back, in at most `limit` events and `size_max` bytes."""
    rows = await (await tx.connection()).fetch(_PAST, after, list(organizations), limit, size_max)
    return _page(rows, after, limit)


def _page(rows: Sequence[Any], after: int, limit: int) -> LogPage:
    events = [
        Logged(row[2], row[1], row[3], row[4], row[5], row[7]) for row in rows if row["last_sequence"] is not None
    ]
    if not rows:
        return LogPage([], after, False)
    more = bool(events) and (len(events) == limit or len(events) < rows[0]["found"])
    return LogPage(events, events[-1].last_sequence if more else max(after, rows[0]["upto"]), more)


async def head(tx: Tx) -> int:
    """The last number that was given."""
    number: int = await (await tx.connection()).fetchval(_HEAD)
    return number


async def following(tx: Tx, after: int, keep_s: float) -> tuple[int, bool] | None:
    """First number of the next event after a number, and whether it is older than `keep_s`; None at the end."""
    row = await (await tx.connection()).fetchrow(_NEXT, after, keep_s)
    return None if row is None else (row[0], row[1])


async def partitions(tx: Tx) -> set[str]:
    """Names of the days' tables."""
    return {row[0] for row in await (await tx.connection()).fetch(_PARTITIONS)}


def partition_name(day: date) -> str:
    """`event_log_20261123`."""
    return f"event_log_{day:%Y%m%d}"


async def make_partition(tx: Tx, day: date) -> None:
    """Makes the table of one day, taking over rows that came before it."""
    name, following_day = partition_name(day), day + timedelta(days=1)
    bounds = f"'{day.isoformat()}T00:00:00Z'", f"'{following_day.isoformat()}T00:00:00Z'"
    within = f"logged_at >= {bounds[0]} AND logged_at < {bounds[1]}"
    await (await tx.connection()).execute(
        f"CREATE TABLE event_days.{name} (LIKE event_log INCLUDING DEFAULTS INCLUDING CONSTRAINTS);"
        "LOCK TABLE event_days.event_log_rest IN ACCESS EXCLUSIVE MODE;"
        f"INSERT INTO event_days.{name} SELECT * FROM event_days.event_log_rest WHERE {within};"
        f"DELETE FROM event_days.event_log_rest WHERE {within};"
        f"ALTER TABLE event_log ATTACH PARTITION event_days.{name} FOR VALUES FROM ({bounds[0]}) TO ({bounds[1]})"
    )


async def drop_partition(tx: Tx, name: str) -> None:
    """Drops the events of one past day."""
    await (await tx.connection()).execute(f"DROP TABLE event_days.{name}")
