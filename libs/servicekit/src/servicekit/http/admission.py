"""How many requests run at the same time in one process; what comes beyond that is refused before it costs anything.

A request holds a place from its head until its answer begins. It holds none while it waits for its own client (a body
that is still on its way) or for a hint (`waiting()`: a long poll), and none for a stream of events after its head. So
only what keeps the process busy keeps others out, and nobody can hold a place by doing nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from servicekit.errors import OVERLOADED

PROBES = frozenset({"/livez", "/readyz", "/health", "/metrics"})
"""Always let in: whoever watches a process must hear from it above all when it has too much to do."""


class Admission:
    """The places of one process. ``running`` may pass ``limit`` where requests that waited go on together."""

    __slots__ = ("limit", "running")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0

    def enter(self) -> Place | None:
        """A place, or None where all are taken."""
        return Place(self) if self.running < self.limit else None


class Place:
    """What one request holds."""

    __slots__ = ("_admission", "_over", "_waits")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._waits = 0
        self._over = False
        admission.running += 1

    def leave(self) -> None:
        """Gives the place up for a while; as often as `come_back` is called."""
        self._waits += 1
        if self._waits == 1 and not self._over:
            self._admission.running -= 1

    def come_back(self) -> None:
        """Takes it again, whether or not one is free: what has begun is brought to its end."""
        self._waits -= 1
        if self._waits == 0 and not self._over:
            self._admission.running += 1

    def come_in(self) -> None:
        """`come_back` of a request of which nothing was done yet. Raises 503 where all places are taken meanwhile."""
        self.come_back()
        if self._admission.running > self._admission.limit and not self._over:
            raise OVERLOADED()

    def end(self) -> None:
        """Gives it up for good; more than once does nothing."""
        if not self._over:
            self._over = True
            if self._waits == 0:
                self._admission.running -= 1


current: ContextVar[Place | None] = ContextVar("place", default=None)
"""The place of the running request; None for probes and outside requests."""


@contextmanager
def waiting() -> Iterator[None]:
    """While the block runs, the request counts for nothing: for the sleep of a long poll, which keeps nothing busy."""
    place = current.get()
    if place is None:
        yield
        return
    place.leave()
    try:
        yield
    finally:
        place.come_back()
