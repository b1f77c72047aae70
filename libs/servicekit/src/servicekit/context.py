"""What the running request, call or event carries along: ids, principal, and whether a transaction is open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from servicekit.auth.principal import Principal

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the HTTP request; also the correlation id where none came along."""
correlation_id: ContextVar[str] = ContextVar("correlation_id", default="")
"""Id of the first request or job of a whole chain of calls and events."""
causation_id: ContextVar[str] = ContextVar("causation_id", default="")
"""Id of the event (or request) that directly caused what runs now."""
traceparent: ContextVar[str] = ContextVar("traceparent", default="")
"""W3C trace context of the current span as text, ``""`` when nothing is traced."""
principal: ContextVar[Principal | None] = ContextVar("principal", default=None)
"""Who asks; None before authentication and in jobs."""
origin_subject: ContextVar[str] = ContextVar("origin_subject", default="")
"""``user:<id>`` of the original caller behind an RPC or an event."""
access_entry: ContextVar[Any] = ContextVar("access_entry", default=None)
"""The access table's entry of the running operation."""


class RemoteCallInTransaction(RuntimeError):
    """Something remote was called while a unit of work was open: a programming error."""


class _Transaction:
    """Marks one open unit of work.

    A task started inside it inherits the marker; it is closed for that task, too, when the unit of work ends.
    """

    __slots__ = ("name", "open")

    def __init__(self, name: str) -> None:
        self.name = name
        self.open = True


_transaction: ContextVar[_Transaction | None] = ContextVar("transaction", default=None)


@contextmanager
def in_transaction(name: str = "unit of work") -> Iterator[None]:
    """Marks the block as running inside a database transaction."""
    marker = _Transaction(name)
    token = _transaction.set(marker)
    try:
        yield
    finally:
        marker.open = False
        _transaction.reset(token)


def transaction_is_open() -> bool:
    """Whether a unit of work of this task is open."""
    marker = _transaction.get()
    return marker is not None and marker.open


def assert_no_transaction(what: str) -> None:
    """Raises RemoteCallInTransaction when a unit of work is open; ``what`` names the remote thing."""
    marker = _transaction.get()
    if marker is not None and marker.open:
        raise RemoteCallInTransaction(f"{what} was called while the {marker.name} was open")


@dataclass(slots=True)
class IdempotencyClaim:
    """An Idempotency-Key on its way to the commit of the write it protects.

    ``scope``: the principal. ``digest``: SHA-256 of method, path, query and body. ``encode``: makes the response
    body from what ``tx.result`` was given. ``locked``: the claim is committed. ``stored``: so is the answer.
    ``keep_answer``: False where the answer holds a secret; ``encode`` then gives nothing to store.
    """

    scope: str
    key: str
    digest: bytes
    status_code: int
    encode: Callable[[Any], bytes]
    keep_answer: bool = True
    locked: bool = False
    stored: bool = False


idempotency_claim: ContextVar[IdempotencyClaim | None] = ContextVar("idempotency_claim", default=None)


@contextmanager
def bind(
    *,
    request: str | None = None,
    correlation: str | None = None,
    causation: str | None = None,
    trace: str | None = None,
    subject: str | None = None,
    who: Principal | None = None,
) -> Iterator[None]:
    """Sets the given values for the block: for jobs, consumers and servicers."""
    pairs: tuple[tuple[ContextVar[Any], Any], ...] = (
        (request_id, request),
        (correlation_id, correlation),
        (causation_id, causation),
        (traceparent, trace),
        (origin_subject, subject),
        (principal, who),
    )
    tokens = [(var, var.set(value)) for var, value in pairs if value is not None]
    try:
        yield
    finally:
        for var, token in reversed(tokens):
            var.reset(token)
