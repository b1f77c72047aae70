"""SQL of the ingest room: raw asyncpg, one statement for any number of rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

import asyncpg
from sqlalchemy import and_, func, insert, not_, or_, select, update
from sqlalchemy.dialects.postgresql import distinct_on

from agents_service.ingest.rules import HEARTBEATS, StreamState, Transcript
from agents_service.ingest.tables import SandboxEvent, SandboxStream
from servicekit.clock import utc_now
from servicekit.db import Tx

_LOCK = """
SELECT sandbox_id, organization_id, agent_id, task_id, ticket_id, project_id, spec_id, execution_id, phase_id, attempt,
       is_open, close_reason, last_sequence, greatest_event_id
FROM sandbox_streams WHERE sandbox_id = ANY($1::text[]) ORDER BY sandbox_id FOR UPDATE
"""

_RECORDED = """
SELECT sandbox_id, event_id, sequence FROM sandbox_events
WHERE event_id = ANY($1::uuid[]) AND sandbox_id = ANY($2::text[])
"""

_ADVANCE = """
UPDATE sandbox_streams s
SET last_sequence = v.last_sequence, greatest_event_id = v.greatest_event_id, last_event_at = $1,
    last_work_at = CASE WHEN v.worked THEN $1 ELSE s.last_work_at END,
    heartbeat_count = s.heartbeat_count + v.heartbeats,
    first_heartbeat_at = CASE WHEN v.heartbeats > 0 THEN coalesce(s.first_heartbeat_at, $1)
                              ELSE s.first_heartbeat_at END,
    last_heartbeat_at = CASE WHEN v.heartbeats > 0 THEN $1 ELSE s.last_heartbeat_at END
FROM unnest($2::text[], $3::bigint[], $4::uuid[], $5::bigint[], $6::boolean[])
     AS v(sandbox_id, last_sequence, greatest_event_id, heartbeats, worked)
WHERE s.sandbox_id = v.sandbox_id
"""

_APPEND = f"""
WITH advanced AS ({_ADVANCE})
INSERT INTO sandbox_events (sandbox_id, sequence, event_id, event_type, event_data, source, created_at)
SELECT e.sandbox_id, e.sequence, e.event_id, e.event_type, e.event_data, e.source, $1
FROM unnest($7::text[], $8::bigint[], $9::uuid[], $10::text[], $11::text[], $12::text[])
     AS e(sandbox_id, sequence, event_id, event_type, event_data, source)
"""

_COLUMNS = ("sandbox_id", "sequence", "event_id", "event_type", "event_data", "source", "created_at")
# From this many rows on COPY costs less than an UNNEST of seven arrays, in spite of its additional round trip.
COPY_FROM_ROWS = 50

_TRANSCRIPT = """
INSERT INTO transcripts (session_id, sandbox_id, organization_id, task_id, transcript_b64, session_metadata)
VALUES ($1, $2, $3, $4, $5, $6::jsonb)
ON CONFLICT (organization_id, session_id) DO UPDATE
SET sandbox_id = excluded.sandbox_id, task_id = excluded.task_id, transcript_b64 = excluded.transcript_b64,
    session_metadata = excluded.session_metadata, updated_at = now()
"""

_FORGET = """
DELETE FROM transcripts WHERE (organization_id, session_id) IN
    (SELECT organization_id, session_id FROM transcripts WHERE updated_at < $1 ORDER BY updated_at LIMIT $2)
AND updated_at < $1
"""


async def open_stream(tx: Tx, **values: Any) -> None:
    """Makes a sandbox able to report."""
    await tx.session.execute(insert(SandboxStream).values(**values))


async def close_stream(tx: Tx, sandbox_id: str, reason: str) -> None:
    """From now on nothing is recorded for this sandbox; waits for batches that are being written."""
    await tx.session.execute(
        update(SandboxStream)
        .where(SandboxStream.sandbox_id == sandbox_id, SandboxStream.is_open)
        .values(is_open=False, close_reason=reason)
    )


async def beat(tx: Tx, sandbox_id: str) -> None:
    """Counts a heartbeat that came by itself and not as an event."""
    now = utc_now()
    await tx.session.execute(
        update(SandboxStream)
        .where(SandboxStream.sandbox_id == sandbox_id)
        .values(
            heartbeat_count=SandboxStream.heartbeat_count + 1,
            first_heartbeat_at=func.coalesce(SandboxStream.first_heartbeat_at, now),
            last_heartbeat_at=now,
        )
    )


async def lock_streams(tx: Tx, sandbox_ids: Sequence[str]) -> dict[str, StreamState]:
    """The streams with their rows locked until the end of the transaction, in an order that cannot deadlock."""
    connection = await tx.connection()
    rows = await connection.fetch(_LOCK, sandbox_ids)
    return {row["sandbox_id"]: _state(row) for row in rows}


def _state(row: Any) -> StreamState:
    greatest = row["greatest_event_id"]
    return StreamState(
        sandbox_id=row["sandbox_id"],
        organization_id=row["organization_id"],
        agent_id=row["agent_id"],
        task_id=row["task_id"],
        ticket_id=row["ticket_id"],
        project_id=row["project_id"],
        spec_id=row["spec_id"],
        execution_id=row["execution_id"],
        phase_id=row["phase_id"],
        attempt=row["attempt"],
        is_open=row["is_open"],
        close_reason=row["close_reason"],
        last_sequence=row["last_sequence"],
        greatest_event_id=str(greatest) if greatest is not None else None,
    )


async def recorded(tx: Tx, sandbox_ids: Sequence[str], event_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """Sandbox id → event id → position of those of the events that are stored already."""
    result: dict[str, dict[str, int]] = {sandbox_id: {} for sandbox_id in sandbox_ids}
    for row in await (await tx.connection()).fetch(_RECORDED, event_ids, sandbox_ids):
        result[row[0]][str(row[1])] = row[2]
    return result


async def append(tx: Tx, streams: Sequence[StreamState], now: datetime) -> None:
    """Writes all placed events of the streams and their new totals."""
    connection = await tx.connection()
    rows = [
        (stream.sandbox_id, sequence, event.event_id, event.event_type, event.data, event.source, now)
        for stream in streams
        for sequence, event in stream.placed
    ]
    totals = (
        [stream.sandbox_id for stream in streams],
        [stream.last_sequence for stream in streams],
        [stream.greatest_event_id for stream in streams],
        [stream.heartbeats for stream in streams],
        [stream.worked for stream in streams],
    )
    if len(rows) >= COPY_FROM_ROWS:
        await connection.copy_records_to_table("sandbox_events", records=rows, columns=_COLUMNS)
        await connection.execute(_ADVANCE, now, *totals)
        return
    columns = [list(column) for column in zip(*rows, strict=True)]
    await connection.execute(_APPEND, now, *totals, *columns[:6])


async def save_transcript(tx: Tx, stream: StreamState, transcript: Transcript) -> None:
    """Keeps the newest transcript of an organization's session; one without a name is the sandbox's."""
    await (await tx.connection()).execute(
        _TRANSCRIPT,
        transcript.session_id or stream.sandbox_id,
        stream.sandbox_id,
        stream.organization_id,
        stream.task_id,
        transcript.transcript_b64,
        json.dumps(transcript.metadata),
    )


async def forget_transcripts(tx: Tx, before: datetime, limit: int) -> int:
    """Deletes up to `limit` transcripts that were last written before this moment; returns how many."""
    status: str = await (await tx.connection()).execute(_FORGET, before, limit)
    return int(status.rpartition(" ")[2])


async def stream_of(tx: Tx, sandbox_id: str) -> SandboxStream | None:
    """The stream's row."""
    return (
        await tx.session.execute(select(SandboxStream).where(SandboxStream.sandbox_id == sandbox_id))
    ).scalar_one_or_none()


async def partitions(tx: Tx) -> dict[str, bool]:
    """Names of the days' tables."""
    rows = await (await tx.connection()).fetch(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'sandbox_events'::regclass"
    )
    return {row[0]: True for row in rows}


def is_moved_row(error: Exception) -> bool:
    """Whether a row was refused because its day got a table of its own while the statement waited: it fits the next."""
    return isinstance(error, asyncpg.CheckViolationError)


def partition_name(day: date) -> str:
    """`sandbox_events_20261123`."""
    return f"sandbox_events_{day:%Y%m%d}"


async def make_partition(tx: Tx, day: date) -> None:
    """Makes the table of one day, taking over rows that came before it."""
    name, following = partition_name(day), day + timedelta(days=1)
    bounds = f"'{day.isoformat()}T00:00:00Z'", f"'{following.isoformat()}T00:00:00Z'"
    within = f"created_at >= {bounds[0]} AND created_at < {bounds[1]}"
    await (await tx.connection()).execute(
        f"CREATE TABLE event_days.{name} (LIKE sandbox_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS);"
        "LOCK TABLE event_days.sandbox_events_rest IN ACCESS EXCLUSIVE MODE;"
        f"INSERT INTO event_days.{name} SELECT * FROM event_days.sandbox_events_rest WHERE {within};"
        f"DELETE FROM event_days.sandbox_events_rest WHERE {within};"
        f"ALTER TABLE sandbox_events ATTACH PARTITION event_days.{name} FOR VALUES FROM ({bounds[0]}) TO ({bounds[1]})"
    )


async def drop_partition(tx: Tx, name: str) -> None:
    """Drops the events of one past day."""
    await (await tx.connection()).execute(f"DROP TABLE event_days.{name}")


async def list_events(
    tx: Tx, sandbox_id: str, *, limit: int, offset: int, event_type: str | None
) -> tuple[Sequence[SandboxEvent], int]:
    """A page of events, newest first, and how many there are."""
    where = [SandboxEvent.sandbox_id == sandbox_id]
    if event_type is not None:
        where.append(SandboxEvent.event_type == event_type)
    query = select(SandboxEvent).where(*where).order_by(SandboxEvent.sequence.desc()).limit(limit).offset(offset)
    rows = (await tx.session.execute(query)).scalars().all()
    total = (await tx.session.execute(select(func.count()).select_from(SandboxEvent).where(*where))).scalar_one()
    return rows, total


async def position_of(tx: Tx, sandbox_id: str, event_id: str) -> int | None:
    """The position of an event of this sandbox."""
    query = select(SandboxEvent.sequence).where(
        SandboxEvent.event_id == event_id, SandboxEvent.sandbox_id == sandbox_id
    )
    return (await tx.session.execute(query)).scalar_one_or_none()


async def trajectory(
    tx: Tx, sandbox_id: str, *, limit: int, before: int | None, after: int | None
) -> Sequence[SandboxEvent]:
    """Up to `limit` events that are neither heartbeats nor search noise.

    Those older than `before` come newest first, those newer than `after` oldest first.
    """
    noise = and_(
        SandboxEvent.event_type.in_(("agent.tool_use", "agent.tool_result")),
        or_(
            SandboxEvent.event_data.regexp_match(r'"tool"\s*:\s*"Grep"'),
            and_(
                SandboxEvent.event_data.regexp_match(r'"tool"\s*:\s*"Glob"'),
                SandboxEvent.event_data.regexp_match(r'"pattern"\s*:\s*"[^"]*\*\*'),
            ),
        ),
    )
    where = [
        SandboxEvent.sandbox_id == sandbox_id,
        SandboxEvent.event_type.not_in(sorted(HEARTBEATS)),
        not_(noise),
    ]
    if before is not None:
        where.append(SandboxEvent.sequence < before)
    if after is not None:
        where.append(SandboxEvent.sequence > after)
    order = SandboxEvent.sequence.asc() if after is not None else SandboxEvent.sequence.desc()
    query = select(SandboxEvent).where(*where).order_by(order).limit(limit)
    return (await tx.session.execute(query)).scalars().all()


async def latest_of_types(tx: Tx, sandbox_ids: Sequence[str], types: Sequence[str]) -> Sequence[SandboxEvent]:
    """The newest event of each of the given types, per sandbox."""
    query = (
        select(SandboxEvent)
        .where(SandboxEvent.sandbox_id.in_(sandbox_ids), SandboxEvent.event_type.in_(types))
        .ext(distinct_on(SandboxEvent.sandbox_id, SandboxEvent.event_type))
        .order_by(SandboxEvent.sandbox_id, SandboxEvent.event_type, SandboxEvent.sequence.desc())
    )
    return (await tx.session.execute(query)).scalars().all()


async def events_of_types(
    tx: Tx, sandbox_ids: Sequence[str], types: Sequence[str], limit: int
) -> Sequence[SandboxEvent]:
    """The first events of the given types, in order."""
    query = (
        select(SandboxEvent)
        .where(SandboxEvent.sandbox_id.in_(sandbox_ids), SandboxEvent.event_type.in_(types))
        .order_by(SandboxEvent.sandbox_id, SandboxEvent.sequence)
        .limit(limit)
    )
    return (await tx.session.execute(query)).scalars().all()


async def streams_of(tx: Tx, sandbox_ids: Sequence[str]) -> dict[str, SandboxStream]:
    """The streams of several sandboxes."""
    rows = (await tx.session.execute(select(SandboxStream).where(SandboxStream.sandbox_id.in_(sandbox_ids)))).scalars()
    return {row.sandbox_id: row for row in rows}
