"""From an event's message to the payload of its frames."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import orjson

from monitoring_service.event_streams.redaction_rules import public_value

_TIMESTAMP = "google.protobuf.Timestamp"


def time_text(moment: datetime) -> str:
    """ISO 8601 in UTC with `Z`."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parsed(data: bytes | str) -> Any:
    """The JSON value of a `*_json` field; None for an empty or broken one."""
    if not data:
        return None
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def plain(message: Any) -> dict[str, Any]:
    """All fields of a protobuf message by name, as JSON values.

    Times become text, `x_json` becomes `x` parsed, an absent time becomes None.
    """
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        name: str = field.name
        value = getattr(message, name)
        nested = field.message_type
        if nested is not None and nested.GetOptions().map_entry:
            found[name] = dict(value)
        elif field.is_repeated:
            found[name] = [plain(item) for item in value] if nested is not None else list(value)
        elif nested is None:
            if name.endswith("_json"):
                found[name.removesuffix("_json")] = parsed(value)
            else:
                found[name] = value
        elif nested.full_name == _TIMESTAMP:
            found[name] = time_text(value.ToDatetime(tzinfo=UTC)) if message.HasField(name) else None
        else:
            found[name] = plain(value)
    return found


def payload_of(message: Any, moment: datetime, **more: Any) -> dict[str, Any]:
    """The public payload of a message; the reference of a task is laid flat. `more` wins over the message's fields."""
    found = plain(message)
    task = found.pop("task", None)
    if isinstance(task, dict):
        found = {**task, "task_title": task.get("title", ""), **found}
    found.setdefault("timestamp", time_text(moment))
    found.update(more)
    clean: dict[str, Any] = public_value(found)
    return clean


def sandbox_payload(message: Any, event: Any, moment: datetime) -> dict[str, Any]:
    """The payload of one event of a sandbox: its data as reported, and where it comes from."""
    data = parsed(event.data_json)
    found: dict[str, Any] = public_value(data) if isinstance(data, dict) else {"data": public_value(data)}
    recorded = event.time.ToDatetime(tzinfo=UTC) if event.HasField("time") else moment
    found.setdefault("timestamp", time_text(recorded))
    found |= {
        "sandbox_id": message.sandbox_id,
        "task_id": message.task_id,
        "ticket_id": message.ticket_id,
        "project_id": message.project_id,
        "spec_id": message.spec_id,
        "event_id": event.event_id,
        "sandbox_sequence": event.sequence,
        "source": event.source,
        "original_event_type": event.event_type,
    }
    return found


def encoded(frame: dict[str, Any]) -> str:
    """A frame as JSON text."""
    try:
        return orjson.dumps(frame).decode()
    except (TypeError, orjson.JSONEncodeError):
        # Integers beyond 64 bits and lone surrogates, which orjson refuses; json escapes them.
        return json.dumps(frame, allow_nan=False, default=str)
