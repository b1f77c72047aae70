"""Whether the stream dropped what a durable had not handled, and sending it again from the outbox.

A stream drops its oldest messages when it is full or they are too old, also those that a durable still waits for, and
the server then moves the durable on as if it had handled them. So the leading relay notes in `stream_readers` up to
where each durable has handled the service's stream. What the stream has dropped beyond that goes to this durable once
more when it has caught up; its inbox skips what it did handle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from nats.errors import Error as NatsError
from nats.js.api import ConsumerInfo, StreamInfo
from nats.js.errors import APIError, NotFoundError

from servicekit.events import metrics
from servicekit.events.bus import Bus
from servicekit.events.envelope import EVENT_ID, MSG_ID, REPLAY_FOR, headers_of
from servicekit.events.publishing import MAX_BATCH, MAX_BATCH_BYTES
from servicekit.ids import new_id

# The server moves a durable past what is gone once a minute at most: the look must come before it.
LOOK_S = 5.0
# A durable has caught up when it waits for at most an eighth of the stream's messages; it gets at most an eighth of the
# stream's size at once: what is sent again must not make the stream drop what it waits for.
SHARE = 8
# What a stream needs for a message beside its payload: headers and its own record.
OVERHEAD_BYTES = 600
# Below the relay's idle limit of 5 s, within which its leader connection must speak.
NATS_S = 3.0
# Where nothing is said, a note stands for so long before it is written again.
NOTE_AGAIN = timedelta(hours=1)
# The clocks of both servers may differ by this much.
CLOCK_MARGIN = timedelta(seconds=5)
# A row is marked after its message was stored; after a relay's death as late as the stream still knows the id.
MARK_MARGIN = timedelta(seconds=125)

_READ = "SELECT * FROM stream_readers"
_WRITE = """
INSERT INTO stream_readers (durable, stream_created, handled_seq, handled_at, lost_from, lost_to, sent_seq)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (durable) DO UPDATE SET stream_created = excluded.stream_created, handled_seq = excluded.handled_seq,
    handled_at = excluded.handled_at, lost_from = excluded.lost_from, lost_to = excluded.lost_to,
    sent_seq = excluded.sent_seq
"""
_FORGET = "DELETE FROM stream_readers WHERE durable <> ALL($1::text[])"
_FIRST = "SELECT min(seq) FROM outbox WHERE published_at >= $1"
_OLDEST = "SELECT published_at FROM outbox ORDER BY seq LIMIT 1"
_WINDOW = "SELECT max(seq) FROM (SELECT seq FROM outbox WHERE seq > $1 ORDER BY seq LIMIT 5000) AS part"
# `$4`: subjects, or patterns where a filter ends in `>`.
_AGAIN = f"""
SELECT o.*, sized.total
FROM (
    SELECT seq, sum(size) OVER (ORDER BY seq) - size AS before, row_number() OVER (ORDER BY seq) AS place,
           count(*) OVER () AS total
    FROM (SELECT seq, octet_length(payload) + {OVERHEAD_BYTES} AS size FROM outbox
          WHERE seq > $1 AND seq <= $2 AND published_at BETWEEN $3 AND $4 AND subject LIKE ANY($5::text[])) AS wanted
) AS sized JOIN outbox AS o USING (seq)
WHERE sized.before < $6 AND sized.place <= {MAX_BATCH} ORDER BY seq
"""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reader:
    """One durable: everything up to `handled_seq`, stored before `handled_at`, is handled or has been noted as lost.

    `lost_from`, `lost_to`: published between these moments and dropped before it was handled; None without a loss.
    `sent_seq`: how far in the outbox that was sent again, None before the first.
    """

    durable: str
    stream_created: datetime
    handled_seq: int
    handled_at: datetime
    lost_from: datetime | None = None
    lost_to: datetime | None = None
    sent_seq: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """What the server says of a durable: `floor` is the sequence below which it has acknowledged all it asked for."""

    floor: int
    waiting: int


def judge(
    before: Reader | None, durable: str, place: Place, *, created: datetime, first: int, last: int, now: datetime
) -> Reader:
    """Return what to note of a durable now, `lost_to` open (`now`) where something it may need is gone.

    `first` and `last` are the stream's sequences, read before `place`; `now` is a moment before both on the clock of
    the outbox. A stream made anew, and one that was never looked at, begin without a loss unless the durable is behind
    its beginning and has work waiting.
    """
    if before is None or before.stream_created != created:
        begin = min(place.floor, last) if place.waiting else last
        before = Reader(durable, created, begin, created if place.waiting else now)
    found = before
    if first > before.handled_seq + 1:
        found = replace(before, lost_from=before.lost_from or before.handled_at, lost_to=now, sent_seq=None)
        found = replace(found, handled_seq=first - 1)
    if not place.waiting and found.handled_seq >= last and now - found.handled_at < NOTE_AGAIN:
        return found
    if not place.waiting:
        return replace(found, handled_seq=max(found.handled_seq, last), handled_at=now)
    return replace(found, handled_seq=max(found.handled_seq, min(place.floor, last)))


class StreamReaders:
    """Looks at the durables of one service's stream through the connection of its leading relay."""

    def __init__(self, bus: Bus, stream: str) -> None:
        self._bus = bus
        self._stream = stream
        self._answered = True
        self.busy = False

    async def look(self, connection: Any) -> None:
        """Note where each durable is and send the next portion of what one has lost.

        What NATS cannot tell now is looked at the next time; database errors leave.
        """
        now = await connection.fetchval("SELECT clock_timestamp()")
        try:
            async with asyncio.timeout(NATS_S):
                stream = await self._bus.js.stream_info(self._stream)
                infos = await self._durables()
        except (NatsError, APIError, TimeoutError, ConnectionError) as error:
            _log.warning("stream_readers_unknown", stream=self._stream, error=repr(error))
            return
        self._answered = True
        before = {row["durable"]: Reader(**row) for row in await connection.fetch(_READ)}
        busy = False
        for info in infos:
            known = before.get(info.name)
            reader = await self._judged(known, info, stream, now)
            if known is None or known.lost_to is None:
                await self._tell(connection, reader)
            if reader.lost_to is not None:
                busy = True
                if _waiting(info) <= stream.state.messages // SHARE:
                    reader = await self._send_again(connection, reader, info, stream)
            metrics.left_unread.labels(info.name).set(reader.lost_to is not None)
            if reader != known:
                await connection.execute(_WRITE, *_columns(reader))
        if before.keys() - {info.name for info in infos}:
            await connection.execute(_FORGET, [info.name for info in infos])
        self.busy = busy

    async def _durables(self) -> list[ConsumerInfo]:
        """All pages of the server's list, leaving out what has no name of its own."""
        found: list[ConsumerInfo] = []
        while page := await self._bus.js.consumers_info(self._stream, offset=len(found)):
            found += page
            if len(page) < 256:
                break
        return [info for info in found if info.config.durable_name]

    async def _judged(self, known: Reader | None, info: ConsumerInfo, stream: StreamInfo, now: datetime) -> Reader:
        state = stream.state
        floor = info.ack_floor.stream_seq if info.ack_floor is not None else 0
        assert stream.created is not None
        reader = judge(
            known,
            info.name,
            Place(floor, _waiting(info)),
            created=stream.created,
            first=state.first_seq,
            last=state.last_seq,
            now=now,
        )
        if reader.lost_to == now:
            oldest = await self._time_of(state.first_seq)
            if oldest is not None:
                reader = replace(reader, lost_to=min(now, oldest) + MARK_MARGIN)
        elif _waiting(info) and now - reader.handled_at > 12 * CLOCK_MARGIN:
            next_one = await self._time_of(reader.handled_seq + 1)
            if next_one is not None:
                reader = replace(reader, handled_at=max(reader.handled_at, next_one - CLOCK_MARGIN))
        return reader

    async def _time_of(self, sequence: int) -> datetime | None:
        """Return when a message was stored, None where it is gone or nobody answers."""
        if not self._answered:
            return None
        try:
            return (await self._bus.js.get_msg(self._stream, seq=sequence)).time
        except NotFoundError:
            return None
        except (NatsError, APIError, TimeoutError, ConnectionError):
            # Asking for each durable in vain would keep the relay for too long.
            self._answered = False
            return None

    async def _tell(self, connection: Any, reader: Reader) -> None:
        if reader.lost_from is None:
            return
        about = {"durable": reader.durable, "stream": self._stream, "since": reader.lost_from.isoformat()}
        _log.error("events_left_unread", **about, todo="they go to it again from the outbox when it has caught up")
        oldest = await connection.fetchval(_OLDEST)
        if oldest is None or oldest > reader.lost_from + MARK_MARGIN:
            # The outbox is younger: either nothing was published then, or it was and is deleted.
            metrics.left_for_good.labels(reader.durable).inc()
            _log.error("events_may_be_lost", **about, todo=f"make rebuild service={reader.durable.partition('-')[0]}")

    async def _send_again(self, connection: Any, reader: Reader, info: ConsumerInfo, stream: StreamInfo) -> Reader:
        """Send the next portion; without one left, and with all of it handled, the loss is mended."""
        assert reader.lost_from is not None
        sent = reader.sent_seq
        if sent is None:
            first = await connection.fetchval(_FIRST, reader.lost_from)
            sent = await connection.fetchval("SELECT coalesce(max(seq), 0) FROM outbox") if first is None else first - 1
        window = await connection.fetchval(_WINDOW, sent)
        if window is None:
            if _waiting(info):
                return replace(reader, sent_seq=sent)
            _log.info("unread_events_sent_again", durable=reader.durable, stream=self._stream)
            return replace(reader, lost_from=None, lost_to=None, sent_seq=None)
        patterns = [_pattern(item) for item in _filters(info)]
        room = min(MAX_BATCH_BYTES, (stream.config.max_bytes or MAX_BATCH_BYTES) // SHARE)
        rows = await connection.fetch(_AGAIN, sent, window, reader.lost_from, reader.lost_to, patterns, room)
        try:
            await self._publish(rows, reader.durable)
        except (NatsError, APIError, TimeoutError, ConnectionError) as error:
            _log.warning("unread_events_not_sent", durable=reader.durable, error=repr(error))
            return replace(reader, sent_seq=sent)
        metrics.sent_again.labels(reader.durable).inc(len(rows))
        complete = not rows or rows[0]["total"] == len(rows)
        return replace(reader, sent_seq=window if complete else rows[-1]["seq"])

    async def _publish(self, rows: Sequence[Mapping[str, Any]], durable: str) -> None:
        """Publish copies that only this durable handles; all are on disk when this returns, else it raises."""
        outcomes = await asyncio.gather(
            *(
                self._bus.publish_stored(
                    row["subject"],
                    row["payload"],
                    # An id that the stream knows would be refused, even though its message is gone.
                    headers_of(row) | {EVENT_ID: str(row["event_id"]), MSG_ID: new_id(), REPLAY_FOR: durable},
                    timeout_s=NATS_S,
                )
                for row in rows
            ),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome


def _waiting(info: ConsumerInfo) -> int:
    return (info.num_pending or 0) + (info.num_ack_pending or 0)


def _filters(info: ConsumerInfo) -> Sequence[str]:
    return info.config.filter_subjects or [info.config.filter_subject or ">"]


def _pattern(subject: str) -> str:
    """Return a filter subject as a pattern of LIKE; the kit's have no `*`."""
    escaped = subject.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%")
    return escaped.removesuffix(">") + "%" if subject.endswith(">") else escaped


def _columns(reader: Reader) -> tuple[Any, ...]:
    return (
        reader.durable,
        reader.stream_created,
        reader.handled_seq,
        reader.handled_at,
        reader.lost_from,
        reader.lost_to,
        reader.sent_seq,
    )
