"""The headers around an event's body, and the event as a handler sees it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

from google.protobuf.message import DecodeError, Message

from servicekit.clock import to_wire
from servicekit.events.registry import message_class_of

B = TypeVar("B", bound=Message, covariant=True)

MSG_ID = "Nats-Msg-Id"
EVENT_ID = "Omoios-Event-Id"
"""The event's own id where `Nats-Msg-Id` had to be another one, in dead letters and their replay."""
REPLAY_FOR = "Omoios-Replay-For"
"""The durable that a replayed dead letter is meant for; all others pass it over."""
TYPE = "Omoios-Type"
TIME = "Omoios-Time"
AGGREGATE_TYPE = "Omoios-Aggregate-Type"
AGGREGATE_ID = "Omoios-Aggregate-Id"
VERSION = "Omoios-Version"
ORGANIZATION = "Omoios-Organization"
CORRELATION = "Omoios-Correlation"
CAUSATION = "Omoios-Causation"
TRACEPARENT = "traceparent"


class Permanent(Exception):
    """Raised by a handler: no repetition will help, the event goes to the dead letters with this reason."""


class Event(Generic[B]):
    """A fact as its consumer sees it. `body` is parsed when it is first looked at.

    `time` is when it happened (aware, UTC), `version` the aggregate's version after it (0 where it has none),
    `organization_id`, `correlation_id` and `causation_id` are None where the emitter knew none.
    """

    __slots__ = (
        "_body",
        "aggregate_id",
        "aggregate_type",
        "causation_id",
        "correlation_id",
        "id",
        "organization_id",
        "payload",
        "time",
        "traceparent",
        "type",
        "version",
    )

    def __init__(self, headers: Mapping[str, str], subject: str, payload: bytes, body: B | None = None) -> None:
        try:
            self.id = str(UUID(headers.get(EVENT_ID) or headers[MSG_ID]))
            self.type = headers.get(TYPE) or subject
            self.time = datetime.fromisoformat(headers[TIME])
            self.aggregate_type = headers[AGGREGATE_TYPE]
            self.aggregate_id = headers[AGGREGATE_ID]
            self.version = int(headers.get(VERSION) or 0)
        except (KeyError, ValueError) as error:
            raise Permanent(f"bad envelope: {error!r}") from error
        self.organization_id = headers.get(ORGANIZATION)
        self.correlation_id = headers.get(CORRELATION)
        self.causation_id = headers.get(CAUSATION)
        self.traceparent = headers.get(TRACEPARENT)
        self.payload = payload
        self._body = body

    @property
    def body(self) -> B:
        """The message. Raises `Permanent` when it cannot be parsed or its type is unknown here."""
        if self._body is None:
            message_class = message_class_of(self.type)
            if message_class is None:
                raise Permanent(f"unknown event type {self.type}")
            try:
                self._body = cast("B", message_class.FromString(self.payload))
            except DecodeError as error:
                raise Permanent(f"body of {self.type} cannot be parsed") from error
        return self._body

    def __repr__(self) -> str:
        return f"Event({self.type}, {self.id}, {self.aggregate_type} {self.aggregate_id} v{self.version})"


def headers_of(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the NATS headers of an outbox row."""
    headers = {
        MSG_ID: str(row["event_id"]),
        TYPE: row["subject"],
        TIME: to_wire(row["occurred_at"]),
        AGGREGATE_TYPE: row["aggregate_type"],
        AGGREGATE_ID: row["aggregate_id"],
        VERSION: str(row["version"]),
    }
    for name, column in (
        (ORGANIZATION, "organization_id"),
        (CORRELATION, "correlation_id"),
        (CAUSATION, "causation_id"),
        (TRACEPARENT, "traceparent"),
    ):
        value = row[column]
        if value:
            headers[name] = value
    return headers
