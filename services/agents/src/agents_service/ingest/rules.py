"""Decisions about reported events: what is acceptable, which position each gets, and what else an event means."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import NAMESPACE_OID, UUID, uuid5

from agents_service.errors import ATTEMPT_SUPERSEDED, EVENT_TOO_LARGE, SANDBOX_ENDED
from servicekit.errors import AppError, FieldError, invalid_fields

MAX_EVENTS = 500
"""Events of one request, of one transaction and of one packed message."""
MAX_DATA_BYTES = 100_000
MAX_TRANSCRIPT_BYTES = 3_000_000
MAX_DEPTH = 64
PACK_BYTES = 400_000
"""A packed message stays well below the 1 MB that NATS takes."""

SOURCES = ("agent", "worker", "system")
HEARTBEATS = frozenset({"agent.heartbeat", "heartbeat", "spec.heartbeat"})
NOT_WORK = HEARTBEATS | {
    "agent.started",
    "agent.error",
    "agent.stream_error",
    "spec.phase_failed",
    "spec.execution_failed",
    "iteration.failed",
    "agent.waiting",
    "agent.shutdown",
    "agent.interrupted",
}
"""Events that do not prove that the sandbox is getting on with its task."""
LIFECYCLE = frozenset({"agent.started", "agent.completed", "continuous.completed", "agent.failed", "agent.error"})
"""Events that bear on the state of the task; told to workflow by a fact of their own."""

MAX_COST_USD = 1_000_000
TOKEN_COUNTS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_EVENT_TYPE = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


class IncomingEvent(NamedTuple):
    """An event as a client sent it. `data` is JSON text of an object; `known` tells that the client chose the id.

    A tuple, because it is made for every event and a frozen dataclass costs four times as much.
    """

    event_id: str
    event_type: str
    data: str
    source: str
    known: bool


@dataclass(frozen=True, slots=True)
class Transcript:
    """A session's transcript lifted out of an `agent.completed` event; the session is empty where it names none."""

    session_id: str
    transcript_b64: str
    metadata: dict[str, Any]


@dataclass(slots=True)
class StreamState:
    """The stream of one sandbox while a batch is planned; the row behind it is locked."""

    sandbox_id: str
    organization_id: str
    agent_id: str
    task_id: str
    ticket_id: str
    project_id: str
    spec_id: str
    execution_id: str
    phase_id: str
    attempt: int
    is_open: bool
    close_reason: str | None
    last_sequence: int
    greatest_event_id: str | None
    placed: list[tuple[int, IncomingEvent]] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)
    heartbeats: int = 0
    worked: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one request's events: how many are new, how many were known, the sandbox's last position."""

    accepted: int
    duplicates: int
    last_sequence: int


def check_event(
    event_id: str | None, event_type: str, data: bytes, source: str, minted: str, loc: tuple[str | int, ...]
) -> IncomingEvent:
    """One event of a request, checked. `loc`: its place in the body. Raises 422 naming the field, or 413."""
    if not _EVENT_TYPE.fullmatch(event_type):
        raise _refused((*loc, "event_type"), "1 to 100 characters of A-Z a-z 0-9 _ . : -", event_type)
    if source not in SOURCES:
        raise _refused((*loc, "source"), f"must be one of {', '.join(SOURCES)}", source)
    if data[:1] != b"{":
        raise _refused((*loc, "event_data"), "must be an object", None)
    if len(data) > MAX_DATA_BYTES:
        raise EVENT_TOO_LARGE(f"The data of an event has at most {MAX_DATA_BYTES} bytes.", limit=MAX_DATA_BYTES)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise _refused((*loc, "event_data"), "must be UTF-8", None) from error
    if event_id is None:
        return IncomingEvent(minted, event_type, text, source, False)
    identifier = event_id.lower()
    if not _UUID.fullmatch(identifier):
        raise _refused((*loc, "event_id"), "must be a UUID in its canonical form", event_id)
    return IncomingEvent(identifier, event_type, text, source, True)


def repeated_id(key: str, place: int, event_type: str, data: bytes, source: str) -> str:
    """The id of an event that came without one under an Idempotency-Key: the same request again has the same events.

    `key` names the caller and the address, too; `place` is the event's place in the request. Its first 48 bits, the
    time of other ids, are nought: whatever the sandbox recorded before, this one is looked for.
    """
    sha = hashlib.sha256()
    for part in (key.encode(), str(place).encode(), event_type.encode(), data, source.encode()):
        sha.update(len(part).to_bytes(8, "big"))
        sha.update(part)
    number = int.from_bytes(sha.digest()[:10], "big") & ~(0xF << 76) & ~(0b11 << 62)
    return str(UUID(int=number | 0x8 << 76 | 0b10 << 62))


def _refused(loc: tuple[str | int, ...], message: str, value: Any) -> AppError:
    return invalid_fields([FieldError(("body", *loc), message, "value_error", value)])


def refusal(stream: StreamState, attempt: int | None) -> AppError | None:
    """Why this stream takes no more events of that attempt (None: the writer is no sandbox); None when it does."""
    if attempt is not None and attempt != stream.attempt:
        return ATTEMPT_SUPERSEDED()
    if stream.is_open:
        return None
    return ATTEMPT_SUPERSEDED() if stream.close_reason in {"lost", "superseded"} else SANDBOX_ENDED()


def to_look_up(stream: StreamState, events: Sequence[IncomingEvent]) -> list[str]:
    """The ids among `events` that may have been recorded before and must be looked up."""
    greatest = stream.greatest_event_id
    if greatest is None:
        return []
    return [event.event_id for event in events if event.known and event.event_id <= greatest]


def place(stream: StreamState, events: Sequence[IncomingEvent], recorded: dict[str, int]) -> Receipt:
    """Give each new event the next position, in order; `recorded` are the ids already stored with their positions."""
    accepted = duplicates = 0
    for event in events:
        if event.event_id in recorded or event.event_id in stream.seen:
            duplicates += 1
            continue
        stream.last_sequence += 1
        stream.placed.append((stream.last_sequence, event))
        accepted += 1
        if event.known:
            stream.seen[event.event_id] = stream.last_sequence
            if stream.greatest_event_id is None or event.event_id > stream.greatest_event_id:
                stream.greatest_event_id = event.event_id
        if event.event_type in HEARTBEATS:
            stream.heartbeats += 1
        elif event.event_type not in NOT_WORK:
            stream.worked = True
    return Receipt(accepted, duplicates, stream.last_sequence)


def packs(placed: Sequence[tuple[int, IncomingEvent]]) -> list[Sequence[tuple[int, IncomingEvent]]]:
    """The placed events in runs that fit one packed message each."""
    result: list[Sequence[tuple[int, IncomingEvent]]] = []
    start = size = 0
    for index, (_, event) in enumerate(placed):
        # `isascii` is a flag of the text: only others must be encoded to learn their bytes.
        length = len(event.data) if event.data.isascii() else len(event.data.encode())
        if index > start and (size + length > PACK_BYTES or index - start >= MAX_EVENTS):
            result.append(placed[start:index])
            start, size = index, 0
        size += length
    if start < len(placed):
        result.append(placed[start:])
    return result


def split_transcript(event_type: str, data: bytes) -> tuple[bytes, Transcript | None]:
    """The data of an `agent.completed` event without its transcript, and that; other data comes back as it is."""
    if event_type != "agent.completed" or b'"transcript_b64"' not in data:
        return data, None
    document = json.loads(data)
    if not isinstance(document, dict):
        return data, None
    transcript = document.pop("transcript_b64", None)
    session_id = document.get("session_id")
    rest = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    if not isinstance(transcript, str) or not transcript:
        return rest, None
    if not isinstance(session_id, str):
        session_id = ""
    if len(transcript) > MAX_TRANSCRIPT_BYTES:
        raise EVENT_TOO_LARGE("The transcript is too large.", limit=MAX_TRANSCRIPT_BYTES)
    names = ("turns", "cost_usd", "stop_reason", *TOKEN_COUNTS)
    return rest, Transcript(session_id[:255], transcript, {name: document.get(name) for name in names})


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """Tokens that one event reports as used, and what they cost where it says so."""

    provider: str
    model: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reported_micro_usd: int = 0
    turn: str = ""
    """`<digest of the session>:<turns>` where the event names both: told again it is the same usage."""

    def usage_id(self, sandbox_id: str, event_id: str) -> str:
        """What billing counts once, over all organizations; a client's id means something in its own sandbox only."""
        return f"{sandbox_id}:{self.turn or event_id}"


def model_usage(event_type: str, data: str) -> ModelUsage | None:
    """The tokens and the cost that an `agent.completed` event reports; None when it reports neither."""
    if event_type != "agent.completed" or ('_tokens"' not in data and '"cost_usd"' not in data):
        return None
    document = json.loads(data)
    counts = [_count(document.get(name)) for name in TOKEN_COUNTS]
    reported = _micro_usd(document.get("cost_usd"))
    if not any(counts) and not reported:
        return None
    turn = _turn(document.get("session_id"), document.get("turns"))
    provider, model = str(document.get("provider") or "anthropic"), str(document.get("model") or "claude-sonnet-4")
    return ModelUsage(provider, model, counts[0], counts[1], counts[2], counts[3], reported, turn)


def _turn(session_id: Any, turns: Any) -> str:
    if not isinstance(session_id, str) or not session_id or not isinstance(turns, int) or isinstance(turns, bool):
        return ""
    return f"{uuid5(NAMESPACE_OID, session_id)}:{turns}" if 0 <= turns < 2**53 else ""


def _micro_usd(value: Any) -> int:
    """Rounded up, as prices are; 0 for what is no cost of one turn."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= MAX_COST_USD:
        return 0
    return math.ceil(value * 1_000_000)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else 0
