"""Clock work: a function that runs every so many seconds, on one instance or on each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Job:
    """``run`` every ``every_s`` seconds, never overlapping itself.

    ``leader``: only the instance that holds the advisory lock of ``(service, name)`` runs it. ``jitter``: part
    of ``every_s`` by which a pause is randomly shortened or lengthened. ``timeout_s``: a longer run is cancelled
    and counted as failed. After a failure the pause doubles, up to ``max_backoff_s``.
    """

    name: str
    every_s: float
    run: Callable[[], Awaitable[object]]
    leader: bool = False
    jitter: float = 0.1
    timeout_s: float = 60.0
    max_backoff_s: float = 60.0

    def __post_init__(self) -> None:
        if self.every_s <= 0:
            raise ValueError(f"job {self.name}: every_s must be positive")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"job {self.name}: jitter must be in [0, 1)")
