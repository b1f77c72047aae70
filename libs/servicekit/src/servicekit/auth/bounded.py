"""A map with a ceiling on its size and on the age of its entries, for caches that a stranger can fill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """At most `max_entries` values, each for `ttl_s` seconds; the oldest leaves first.

    Not an LRU: with lifetimes of seconds the order of arrival is as good, and a hit writes nothing.
    """

    __slots__ = ("_clock", "_entries", "max_entries", "ttl_s")

    def __init__(self, max_entries: int, ttl_s: float, clock: Callable[[], float]) -> None:
        self.max_entries = max_entries
        self.ttl_s = ttl_s
        self._clock = clock
        self._entries: dict[K, tuple[float, V]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The value, or None when it is absent or too old."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] <= self._clock():
            self._entries.pop(key, None)
            return None
        return entry[1]

    def put(self, key: K, value: V, ttl_s: float | None = None) -> None:
        """Stores for `ttl_s` (never longer than the cache's own)."""
        lifetime = self.ttl_s if ttl_s is None else min(ttl_s, self.ttl_s)
        self._entries.pop(key, None)
        while len(self._entries) >= self.max_entries:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = (self._clock() + lifetime, value)

    def discard(self, key: K) -> None:
        """Forgets one entry."""
        self._entries.pop(key, None)

    def discard_where(self, predicate: Callable[[V], bool]) -> None:
        """Forgets every entry whose value matches; walks the whole cache."""
        for key in [key for key, (_, value) in self._entries.items() if predicate(value)]:
            del self._entries[key]

    def clear(self) -> None:
        """Forgets everything."""
        self._entries.clear()
