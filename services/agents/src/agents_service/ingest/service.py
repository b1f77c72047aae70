"""Recording what sandboxes report."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from agents_service import events
from agents_service.errors import INGEST_BUSY, SANDBOX_NOT_FOUND
from agents_service.ingest import rules, store
from agents_service.ingest.batching_service import MicroBatcher
from agents_service.ingest.rules import IncomingEvent, ModelUsage, Receipt, StreamState, Transcript
from agents_service.settings import Settings
from servicekit.auth import Principal, PrincipalType
from servicekit.clock import utc_now
from servicekit.db import Database, Tx
from servicekit.errors import AppError, Kind
from servicekit.ids import new_id

_log = logging.getLogger(__name__)

DAYS_AHEAD = 3
FORGOTTEN_PER_STATEMENT = 200


@dataclass(frozen=True, slots=True)
class Submission:
    """One request's events, with who sent them."""

    principal: Principal
    sandbox_id: str
    events: Sequence[IncomingEvent]
    transcripts: Sequence[Transcript] = ()
    usage: Sequence[tuple[str, ModelUsage]] = ()


def admit(principal: Principal, stream: StreamState) -> AppError | None:
    """Why `principal` may not write to this stream; None when it may.

    A sandbox writes to its own stream with its own attempt; an agent to those of its sandboxes; a user where he has
    `task:write`. Whoever may not is told that the sandbox does not exist.
    """
    if principal.type is PrincipalType.SANDBOX:
        if principal.id != stream.sandbox_id or principal.organization_id != stream.organization_id:
            return SANDBOX_NOT_FOUND()
        return rules.refusal(stream, int(principal.claims.get("attempt", 0)))
    if principal.type is PrincipalType.AGENT and principal.id != stream.agent_id:
        return SANDBOX_NOT_FOUND()
    try:
        principal.require("task:write", stream.organization_id, SANDBOX_NOT_FOUND)
    except AppError as refused:
        return refused
    return rules.refusal(stream, None)


class IngestService:
    """The door for sandbox events. One per process; its batcher is what makes single events cheap."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self.db = db
        self.retention = timedelta(days=settings.event_retention_days)
        self.batcher: MicroBatcher[Submission, Receipt] = MicroBatcher(
            self.write,
            max_weight=rules.MAX_EVENTS,
            linger_s=settings.ingest_linger_ms / 1000,
            max_pending=settings.ingest_pending_max,
        )

    async def record(self, submission: Submission) -> Receipt:
        """Record events of one sandbox; returns after the commit.

        Raises 404 for a sandbox that does not exist for the caller, 409 `agents.attempt_superseded` or
        `agents.sandbox_ended`, 503 when too much is waiting or the database is away.
        """
        return await self.batcher.submit(submission, max(1, len(submission.events)))

    async def write(self, batch: Sequence[Submission], *, again: bool = False) -> Sequence[Receipt | Exception]:
        """Write the events of several requests in one transaction; one answer or error per request.

        `again`: a second try, after the table that the rows belong to was made during the first.
        """
        try:
            return await self._write(batch)
        except AppError as error:
            if error.kind is not Kind.UNAVAILABLE or len(batch) == 1:
                return [error] * len(batch)
            # A lock or statement that timed out may be the fault of one sandbox of the batch.
            return [INGEST_BUSY()] * len(batch)
        except Exception as error:
            if store.is_moved_row(error) and not again:
                return await self.write(batch, again=True)
            if len(batch) == 1:
                return [error]
            _log.exception("a batch of %d requests failed; writing them one by one", len(batch))
            return [(await self.write([submission]))[0] for submission in batch]

    async def _write(self, batch: Sequence[Submission]) -> list[Receipt | Exception]:
        async with self.db.uow() as tx:
            streams = await store.lock_streams(tx, list({submission.sandbox_id for submission in batch}))
            results: list[Receipt | Exception] = [SANDBOX_NOT_FOUND()] * len(batch)
            admitted: list[tuple[int, Submission, StreamState]] = []
            doubtful: list[str] = []
            for index, submission in enumerate(batch):
                stream = streams.get(submission.sandbox_id)
                refused = SANDBOX_NOT_FOUND() if stream is None else admit(submission.principal, stream)
                if stream is None or refused is not None:
                    results[index] = refused or SANDBOX_NOT_FOUND()
                    continue
                admitted.append((index, submission, stream))
                doubtful += rules.to_look_up(stream, submission.events)
            known = await store.recorded(tx, list(streams), doubtful) if doubtful else {}
            now = utc_now()
            moment = events.stamp(now)
            assert moment is not None
            for index, submission, stream in admitted:
                results[index] = rules.place(stream, submission.events, known.get(stream.sandbox_id, {}))
            changed = [stream for stream in streams.values() if stream.placed]
            if changed:
                await store.append(tx, changed, now)
            for stream in changed:
                for run in rules.packs(stream.placed):
                    tx.emit(
                        events.events_recorded(stream, run, moment),
                        aggregate_id=stream.sandbox_id,
                        version=run[-1][0],
                        organization_id=stream.organization_id,
                    )
                for sequence, event in stream.placed:
                    if event.event_type in rules.LIFECYCLE:
                        tx.emit(
                            events.lifecycle_reported(stream, event),
                            aggregate_id=stream.sandbox_id,
                            version=sequence,
                            organization_id=stream.organization_id,
                        )
            for _, submission, stream in admitted:
                fresh = {event.event_id for _, event in stream.placed}
                used = [
                    events.model_tokens(stream, usage.usage_id(stream.sandbox_id, event_id), usage, moment)
                    for event_id, usage in submission.usage
                    if event_id in fresh
                ]
                if used:
                    tx.emit(
                        events.usage_recorded(used),
                        aggregate_id=stream.sandbox_id,
                        organization_id=stream.organization_id,
                    )
                for transcript in submission.transcripts:
                    await store.save_transcript(tx, stream, transcript)
        return results

    async def open_stream(self, tx: Tx, stream: StreamState) -> None:
        """Make a sandbox able to report; joins the transaction that makes the sandbox."""
        await store.open_stream(
            tx,
            sandbox_id=stream.sandbox_id,
            organization_id=stream.organization_id,
            agent_id=stream.agent_id,
            task_id=stream.task_id,
            ticket_id=stream.ticket_id,
            project_id=stream.project_id,
            spec_id=stream.spec_id,
            execution_id=stream.execution_id,
            phase_id=stream.phase_id,
            attempt=stream.attempt,
        )

    async def beat(self, tx: Tx, sandbox_id: str) -> None:
        """Count a heartbeat that is no event of its own; joins the transaction that notes it."""
        await store.beat(tx, sandbox_id)

    async def close_stream(self, tx: Tx, sandbox_id: str, reason: str) -> None:
        """Refuse everything that this sandbox reports from now on."""
        await store.close_stream(tx, sandbox_id, reason)

    async def maintain_partitions(self) -> None:
        """Make the tables of today and the coming days, drop those older than the retention."""
        today = utc_now().date()
        async with self.db.reader() as tx:
            there = await store.partitions(tx)
        for ahead in range(DAYS_AHEAD + 1):
            day = today + timedelta(days=ahead)
            if store.partition_name(day) not in there:
                await self._make(day)
        oldest = store.partition_name(today - self.retention)
        for name in sorted(there):
            if name.removeprefix("sandbox_events_").isdigit() and name < oldest:
                async with self.db.uow(statement_timeout_s=60) as tx:
                    await store.drop_partition(tx, name)
                _log.info("dropped the events of %s", name)

    async def forget_transcripts(self) -> int:
        """Delete transcripts of sessions that nobody went on with during the retention; returns how many."""
        forgotten = 0
        while True:
            async with self.db.uow(statement_timeout_s=60) as tx:
                count = await store.forget_transcripts(tx, utc_now() - self.retention, FORGOTTEN_PER_STATEMENT)
            forgotten += count
            if count < FORGOTTEN_PER_STATEMENT:
                return forgotten

    async def _make(self, day: date) -> None:
        async with self.db.uow(statement_timeout_s=60) as tx:
            await store.make_partition(tx, day)

    async def close(self) -> None:
        """Write what is waiting."""
        async with asyncio.timeout(10):
            await self.batcher.close()


def incoming(
    items: Sequence[tuple[str | None, str, bytes, str]], *, single: bool, key: str = ""
) -> tuple[list[IncomingEvent], list[Transcript], list[tuple[str, ModelUsage]]]:
    """Check the `(event id, type, data, source)` of one request and lift out transcripts and usage. Raises 422, 413.

    `key`: what a repetition of the request has in common with it, empty for none.
    """
    checked: list[IncomingEvent] = []
    transcripts: list[Transcript] = []
    usage: list[tuple[str, ModelUsage]] = []
    for index, (event_id, event_type, data, source) in enumerate(items):
        loc: tuple[str | int, ...] = () if single else ("events", index)
        if event_id is None and key:
            event_id = rules.repeated_id(key, index, event_type, data, source)
        if event_type == "agent.completed":
            data, transcript = rules.split_transcript(event_type, data)
            if transcript is not None:
                transcripts.append(transcript)
        event = rules.check_event(event_id, event_type, data, source, "" if event_id else new_id(), loc)
        checked.append(event)
        used = rules.model_usage(event_type, event.data)
        if used is not None:
            usage.append((event.event_id, used))
    return checked, transcripts, usage
