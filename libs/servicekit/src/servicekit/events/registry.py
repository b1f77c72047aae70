"""Which message class belongs to a subject, found in the generated contracts."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator

from google.protobuf import message_factory
from google.protobuf.message import Message

from servicekit.db.event_options import event_type

SERVICES = ("identity", "workflow", "agents", "monitoring", "billing", "vcs")

_loaded: dict[str, dict[str, type[Message]]] = {}
# A service of which one message is known by `register` may have others that were not looked for yet.
_complete: set[str] = set()


def events_of(service: str) -> dict[str, type[Message]]:
    """Return subject → message class of everything that a service can say; empty for an unknown service."""
    known = _loaded.setdefault(service, {})
    if service not in _complete:
        package = f"omoios.{service}.events.v1"
        if service.isidentifier() and _exists(package):
            for message_class in _messages(package):
                register(message_class)
        _complete.add(service)
    return known


def register(message_class: type[Message]) -> None:
    """Make a message class known by its subject; messages without the event option are left out."""
    try:
        kind = event_type(message_class)
    except TypeError:
        return
    _loaded.setdefault(kind.service, {})[kind.subject] = message_class


def message_class_of(subject: str) -> type[Message] | None:
    """Return the class of a subject's body, None for a subject that these contracts do not know."""
    return events_of(subject.partition(".")[0]).get(subject)


def _exists(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _messages(package: str) -> Iterator[type[Message]]:
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if module.name.endswith("_pb2"):
            file = importlib.import_module(f"{package}.{module.name}").DESCRIPTOR
            for descriptor in file.message_types_by_name.values():
                yield message_factory.GetMessageClass(descriptor)
