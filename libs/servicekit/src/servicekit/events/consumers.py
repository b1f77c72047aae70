"""What reacts to which event: the declarations of a room's `consumers.py`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

from google.protobuf.message import Message

from servicekit import context
from servicekit.db import Tx
from servicekit.db.event_options import event_type
from servicekit.events.envelope import Event
from servicekit.events.registry import register

M = TypeVar("M", bound=Message)
Handler = Callable[[Tx, Event[Any]], Awaitable[None]]
BatchHandler = Callable[[Tx, Sequence[Event[Any]]], Awaitable[None]]


@dataclass
class Source:
    """What one group of consumers takes from one service's stream."""

    service: str
    handlers: dict[str, BatchHandler] = field(default_factory=dict)
    fallback: BatchHandler | None = None
    used: frozenset[str] = frozenset()
    """The subjects of which `fallback` makes more than a record."""

    def uses(self, subject: str) -> bool:
        """Whether an event means something here: one that is only recorded with all others is heard by nobody."""
        return subject in self.handlers or subject in self.used

    @property
    def stream(self) -> str:
        """Name of the JetStream stream."""
        return self.service.upper()

    @property
    def subjects(self) -> list[str]:
        """The filter subjects of the durable, sorted."""
        return [f"{self.service}.>"] if self.fallback is not None else sorted(self.handlers)

    def handler_of(self, subject: str) -> BatchHandler | None:
        """Return what handles a subject, None where nothing does."""
        return self.handlers.get(subject, self.fallback)


class Consumers:
    """A group of handlers with a name of its own; each stream it reads has the durable `<service>-<name>-<stream>`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sources: dict[str, Source] = {}

    def on(self, *types: type[M]) -> Callable[[Callable[[Tx, Event[M]], Awaitable[None]]], Any]:
        """Register `async def handler(tx, event)` for event messages; it is called once for each event."""

        def add(handler: Callable[[Tx, Event[M]], Awaitable[None]]) -> Any:
            self._add(types, OneByOne(handler))
            return handler

        return add

    def on_batch(self, *types: type[Message]) -> Callable[[BatchHandler], BatchHandler]:
        """Register `async def handler(tx, events)`, called with neighbouring events of these types together.

        It may also be called with a single one, when a batch is repeated because of another event's error.
        """

        def add(handler: BatchHandler) -> BatchHandler:
            self._add(types, handler)
            return handler

        return add

    def on_any(self, service: str, handler: Handler, *, uses: Collection[str] = ()) -> None:
        """Register a handler for every event of a service that has no handler of its own here.

        `uses`: the subjects of which it makes more than a record of their passing.
        """
        self.on_any_batch(service, OneByOne(handler), uses=uses)

    def on_any_batch(self, service: str, handler: BatchHandler, *, uses: Collection[str] = ()) -> None:
        """Register a handler for every event of a service; it is called with neighbouring events together.

        It may also be called with a single one, when a batch is repeated because of another event's error. `uses`: the
        subjects of which it makes more than a record of their passing.
        """
        source = self.sources.setdefault(service, Source(service))
        if source.fallback is not None:
            raise ValueError(f"{self.name} has a handler for all of {service} already")
        source.fallback = handler
        source.used = frozenset(subject for subject in uses if subject.startswith(f"{service}."))

    def durable(self, owner: str, source: Source) -> str:
        """Return the name of the durable with which service `owner` reads a source."""
        return f"{owner}-{self.name}-{source.service}"

    def _add(self, types: Sequence[type[Message]], handler: BatchHandler) -> None:
        if not types:
            raise ValueError("name at least one event message")
        for message_class in types:
            kind = event_type(message_class)
            register(message_class)
            source = self.sources.setdefault(kind.service, Source(kind.service))
            if kind.subject in source.handlers:
                raise ValueError(f"{self.name} has a handler for {kind.subject} already")
            source.handlers[kind.subject] = handler


class OneByOne:
    """A handler of single events where a batch is expected: each event has a context, and a span, of its own."""

    def __init__(self, handler: Callable[[Tx, Event[Any]], Awaitable[None]]) -> None:
        self._handler = handler

    async def __call__(self, tx: Tx, events: Sequence[Event[Any]]) -> None:
        """Handle the events in their order."""
        for event in events:
            with event_context(event):
                await self._handler(tx, event)


def event_context(event: Event[Any]) -> Any:
    """Return the context in which an event is handled: what it causes names it, its chain and its trace.

    Where that is the context already, it stays, so that what the event causes is a child of the handler's span.
    """
    if context.causation_id.get() == event.id:
        return nullcontext()
    return context.bind(
        request=event.correlation_id or event.id,
        correlation=event.correlation_id or event.id,
        causation=event.id,
        trace=event.traceparent or "",
    )
