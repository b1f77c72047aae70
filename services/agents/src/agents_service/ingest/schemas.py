"""Wire shapes of the ingest operations; msgspec, for they are the hot path."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

_EMPTY = msgspec.Raw(b"{}")


class EventCreate(msgspec.Struct, gc=False):
    """`event_data` is any JSON object of at most 100 KB; the same `event_id` twice is one event."""

    event_type: str
    # A factory, because msgspec cannot write a Raw default into the OpenAPI schema.
    event_data: msgspec.Raw = msgspec.field(default_factory=lambda: _EMPTY)
    source: str = "agent"
    event_id: str | None = None


class EventReceived(msgspec.Struct, gc=False):
    """`event_id` names the recorded event; `timestamp` is the server's."""

    status: str
    sandbox_id: str
    event_type: str
    event_id: str
    timestamp: datetime


class EventBatch(msgspec.Struct, gc=False):
    """1 to 500 events of one sandbox, in their order."""

    events: Annotated[list[EventCreate], msgspec.Meta(min_length=1, max_length=500)]


class EventBatchReceived(msgspec.Struct, gc=False):
    """`accepted` events are new, `duplicates` were recorded before; `last_sequence`: the sandbox's newest position."""

    status: str
    sandbox_id: str
    accepted: int
    duplicates: int
    last_sequence: int
    timestamp: datetime
