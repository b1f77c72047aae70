"""Dead letters: events that a consumer could not handle, kept with the reason until someone replays them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from servicekit.clock import to_wire, utc_now
from servicekit.context import assert_no_transaction
from servicekit.events.bus import Bus
from servicekit.events.envelope import EVENT_ID, MSG_ID, REPLAY_FOR

STREAM = "DLQ"
PREFIX = "dlq."
REASON = "Omoios-Dead-Reason"
DURABLE = "Omoios-Dead-Durable"
DELIVERIES = "Omoios-Dead-Deliveries"
SEQUENCE = "Omoios-Dead-Stream-Sequence"
TIME = "Omoios-Dead-Time"
REPLAYS = "Omoios-Dead-Replays"

_DEAD_HEADERS = (REASON, DURABLE, DELIVERIES, SEQUENCE, TIME)
# A header is one line; a longer reason is in the log.
_REASON_LENGTH = 500


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter. `sequence` is its place in the stream DLQ, `subject` the event's own."""

    sequence: int
    subject: str
    event_id: str
    durable: str
    reason: str
    deliveries: int
    time: str
    headers: dict[str, str] = field(repr=False)
    payload: bytes = field(repr=False)


async def bury(bus: Bus, message: Msg, durable: str, reason: str) -> None:
    """Copy a message to `dlq.<subject>` with the reason; raises when the stream did not acknowledge it."""
    given = message.headers or {}
    event_id = given.get(EVENT_ID) or given.get(MSG_ID) or f"{message.subject}:{message.metadata.sequence.stream}"
    headers = _own(given)
    replays = headers.get(REPLAYS, "0")
    headers |= {
        # The same event may die for several durables, and again after a replay.
        MSG_ID: f"{event_id}:{durable}:{replays}",
        EVENT_ID: event_id,
        REASON: " ".join(reason.split())[:_REASON_LENGTH],
        DURABLE: durable,
        DELIVERIES: str(message.metadata.num_delivered),
        SEQUENCE: str(message.metadata.sequence.stream),
        TIME: to_wire(utc_now()),
    }
    await bus.publish_stored(PREFIX + message.subject, message.data, headers)


def _own(headers: Mapping[str, str]) -> dict[str, str]:
    """Leave out what steers JetStream: a copied `Nats-Batch-Id` would make the copy a part of a batch."""
    return {name: value for name, value in headers.items() if not name.startswith("Nats-")}


async def letters(js: JetStreamContext) -> AsyncIterator[DeadLetter]:
    """Read all dead letters, oldest first."""
    state = (await js.stream_info(STREAM)).state
    for sequence in range(max(1, state.first_seq), state.last_seq + 1):
        try:
            raw = await js.get_msg(STREAM, seq=sequence)
        except NotFoundError:
            continue
        headers = dict(raw.headers or {})
        yield DeadLetter(
            sequence=sequence,
            subject=(raw.subject or "").removeprefix(PREFIX),
            event_id=headers.get(EVENT_ID, ""),
            durable=headers.get(DURABLE, ""),
            reason=headers.get(REASON, ""),
            deliveries=int(headers.get(DELIVERIES, "0")),
            time=headers.get(TIME, ""),
            headers=headers,
            payload=raw.data or b"",
        )


async def replay(js: JetStreamContext, letter: DeadLetter) -> None:
    """Publish an event again for the durable it died in, then delete the dead letter.

    The others pass it over. Its inbox row was rolled back, so that the durable handles it as if for the first time.
    """
    assert_no_transaction("a replay")
    replays = int(letter.headers.get(REPLAYS, "0")) + 1
    headers = {name: value for name, value in _own(letter.headers).items() if name not in _DEAD_HEADERS}
    headers |= {
        MSG_ID: f"{letter.event_id}:{letter.durable}:replay-{replays}",
        EVENT_ID: letter.event_id,
        REPLAY_FOR: letter.durable,
        REPLAYS: str(replays),
    }
    await js.publish(letter.subject, letter.payload, headers=headers)
    await js.delete_msg(STREAM, letter.sequence)
