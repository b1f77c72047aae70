"""Which frames one reader wants and may see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from monitoring_service.event_streams.frame_rules import READABLE, Frame

KEYS = ("event_types", "entity_types", "entity_ids")
VALUES_MAX = 200
VALUE_LENGTH_MAX = 200

Grants = Mapping[str, frozenset[str]]
"""Organization id → those of `READABLE` that the reader has there."""


class BadFilter(Exception):
    """A filter that is not a list of at most 200 texts of at most 200 characters each. `key`: the filter's name."""

    def __init__(self, problem: str, key: str = "") -> None:
        super().__init__(problem)
        self.key = key


@dataclass(frozen=True, slots=True)
class Filters:
    """AND across the three keys, OR inside one; None lets everything through.

    An entity id matches the frame's own entity or the project that it belongs to.
    """

    event_types: frozenset[str] | None = None
    entity_types: frozenset[str] | None = None
    entity_ids: frozenset[str] | None = None

    def match(self, frame: Frame) -> bool:
        """Whether the frame passes."""
        return (
            (self.event_types is None or frame.event_type in self.event_types)
            and (self.entity_types is None or frame.entity_type in self.entity_types)
            and (
                self.entity_ids is None
                or frame.entity_id in self.entity_ids
                or (frame.project_id != "" and frame.project_id in self.entity_ids)
            )
        )

    def changed(self, wanted: Mapping[str, Sequence[str]]) -> Filters:
        """These filters with the given keys replaced; an empty list widens a key to all."""
        return replace(self, **{key: frozenset(values) or None for key, values in wanted.items()})


def from_query(texts: Mapping[str, str]) -> Filters:
    """Filters of a query: comma lists, items trimmed, empty ones left out. Raises `BadFilter`."""
    wanted = {
        key: _bounded(key, [item.strip() for item in texts[key].split(",") if item.strip()])
        for key in KEYS
        if key in texts
    }
    return Filters().changed(wanted)


def subscribed(message: Mapping[str, Any]) -> dict[str, list[str]]:
    """The keys that a subscribe frame replaces, with their values; null counts as empty. Raises `BadFilter`."""
    found: dict[str, list[str]] = {}
    for key in KEYS:
        if key not in message:
            continue
        values = message[key] if message[key] is not None else []
        if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
            raise BadFilter(f"{key} must be a list of texts", key)
        found[key] = _bounded(key, values)
    return found


def grants_of(organizations: Sequence[str], can: Callable[[str, str], bool]) -> Grants:
    """What a principal may read: `can(permission, organization)` is asked once, a frame then costs a look-up."""
    found: dict[str, frozenset[str]] = {}
    for organization in organizations:
        readable = frozenset(permission for permission in READABLE if can(permission, organization))
        if readable:
            found[organization] = readable
    return found


def _bounded(key: str, values: Sequence[str]) -> list[str]:
    if len(values) > VALUES_MAX:
        raise BadFilter(f"at most {VALUES_MAX} values are possible for one key", key)
    if any(len(value) > VALUE_LENGTH_MAX for value in values):
        raise BadFilter(f"a value has at most {VALUE_LENGTH_MAX} characters", key)
    return list(values)
