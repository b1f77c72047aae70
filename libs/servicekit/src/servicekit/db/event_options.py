"""What the proto option `(omoios.options.v1.event)` says of an event message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

_OPTION = "omoios.options.v1.event"


@dataclass(frozen=True, slots=True)
class EventType:
    """Subject (and type at once), aggregate, and whether the event makes its aggregate known to other services."""

    subject: str
    aggregate: str
    resource: bool
    audit_only: str

    @property
    def service(self) -> str:
        """Name of the service that emits it: the first part of the subject."""
        return self.subject.partition(".")[0]


def describe(descriptor: Any) -> EventType | None:
    """Return the event option of a message, None where it carries none."""
    try:
        extension: Any = descriptor.file.pool.FindExtensionByName(_OPTION)
    except KeyError:
        return None
    options: Any = descriptor.GetOptions()
    if not options.HasExtension(extension):
        return None
    value = options.Extensions[extension]
    return EventType(value.subject, value.aggregate, value.resource, value.audit_only)


_known: dict[type[Message], EventType] = {}


def event_type(message_class: type[Message]) -> EventType:
    """Return the event option of a message class; `TypeError` where it carries none."""
    known = _known.get(message_class)
    if known is None:
        known = describe(message_class.DESCRIPTOR)
        if known is None:
            raise TypeError(f"{message_class.DESCRIPTOR.full_name} has no option ({_OPTION})")
        _known[message_class] = known
    return known
