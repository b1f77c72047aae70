"""Events on their way out: buffered by the transaction and written last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from google.protobuf.message import Message

from servicekit import context
from servicekit.clock import utc_now
from servicekit.db.event_options import event_type
from servicekit.ids import new_id

CHANNEL = "omoios_outbox"
"""PostgreSQL channel on which a commit with events is announced to the relay of another process."""

MAX_PAYLOAD_BYTES = 1_000_000
"""A stream takes messages of 1 MiB, headers included; larger facts are split by their emitter."""

_INSERT_ONE = """
INSERT INTO outbox (event_id, subject, aggregate_type, aggregate_id, version, organization_id,
                    correlation_id, causation_id, traceparent, occurred_at, payload)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""

_INSERT_MANY = """
INSERT INTO outbox (event_id, subject, aggregate_type, aggregate_id, version, organization_id,
                    correlation_id, causation_id, traceparent, occurred_at, payload)
SELECT e.event_id, e.subject, e.aggregate_type, e.aggregate_id, e.version, e.organization_id,
       e.correlation_id, e.causation_id, e.traceparent, e.occurred_at, e.payload
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[],
            $7::text[], $8::text[], $9::text[], $10::timestamptz[], $11::bytea[])
     WITH ORDINALITY AS e(event_id, subject, aggregate_type, aggregate_id, version, organization_id,
                          correlation_id, causation_id, traceparent, occurred_at, payload, position)
ORDER BY e.position
"""


@dataclass(frozen=True, slots=True)
class OutgoingEvent:
    """One row of the outbox before it has a sequence number."""

    event_id: str
    subject: str
    aggregate_type: str
    aggregate_id: str
    version: int
    organization_id: str | None
    correlation_id: str | None
    causation_id: str | None
    traceparent: str | None
    occurred_at: datetime
    payload: bytes

    def columns(self) -> tuple[Any, ...]:
        """Return the values in the order of the table's columns after `seq`."""
        return (
            self.event_id,
            self.subject,
            self.aggregate_type,
            self.aggregate_id,
            self.version,
            self.organization_id,
            self.correlation_id,
            self.causation_id,
            self.traceparent,
            self.occurred_at,
            self.payload,
        )


def outgoing_event(
    message: Message,
    *,
    aggregate_id: str,
    version: int,
    organization_id: str | None,
    event_id: str | None = None,
    occurred_at: datetime | None = None,
) -> OutgoingEvent:
    """Turn a message of `events/v1` into an outbox row, with the ids of what caused it.

    Raises `TypeError` for a message without the `(omoios.options.v1.event)` option, `ValueError` for one that no stream
    would take.
    """
    kind = event_type(type(message))
    payload = message.SerializeToString()
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"{kind.subject} is {len(payload)} bytes long, at most {MAX_PAYLOAD_BYTES} are possible")
    for name, value in (("aggregate_id", aggregate_id), ("organization_id", organization_id or "-")):
        # They become NATS headers, which are single lines.
        if not value.isprintable() or not value:
            raise ValueError(f"{name} of {kind.subject} is not a printable text: {value!r}")
    request = context.request_id.get()
    return OutgoingEvent(
        event_id=event_id or new_id(),
        subject=kind.subject,
        aggregate_type=kind.aggregate,
        aggregate_id=aggregate_id,
        version=version,
        organization_id=organization_id,
        correlation_id=context.correlation_id.get() or request or None,
        causation_id=context.causation_id.get() or request or None,
        traceparent=context.traceparent.get() or None,
        occurred_at=occurred_at or utc_now(),
        payload=payload,
    )


async def insert_events(connection: Any, events: Sequence[OutgoingEvent]) -> None:
    """Write rows through a raw asyncpg connection; sequence numbers follow the order of `events`."""
    if len(events) == 1:
        await connection.execute(_INSERT_ONE, *events[0].columns())
        return
    await connection.execute(_INSERT_MANY, *map(list, zip(*(event.columns() for event in events), strict=True)))
