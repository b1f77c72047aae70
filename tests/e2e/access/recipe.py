"""What a call of an operation needs: path ids, query and body, written as data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

PLACE = re.compile(r"\{(\w+)\}")


class Scope(StrEnum):
    """Whose rows an operation addresses; it decides what people who are none of the organization are answered."""

    ORGANIZATION = "organization"
    """A row of an organization: strangers 404, members without the permission 403."""
    LISTS = "lists"
    """Whatever the caller may see: everybody who may call it is answered, from his own organizations."""
    PERSON = "person"
    """A row of one person (`by`): nothing to everybody else, whatever his role."""
    ONESELF = "oneself"
    """The caller himself, or nothing that belongs to anybody: everybody who may call it is answered."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A valid call.

    A value `"{name}"` stands for a row that `rows/` makes under this name; a parameter of the path that `path` does
    not mention is the row of its own name. `needs`: further rows. `body` None: no body. `by`: the rightful caller, a
    name of `callers.py`. `machines`: who of `agent`, `sandbox` and `other_sandbox` is answered where the access table
    admits his kind; those not named there must get 404. `alone`: of all who may call it only `by` does, because it
    changes the caller himself. `streams`: the answer has no end, only its head is read. `nothing`: what a search
    answers to somebody who belongs to no organization. `answered`: what who may is answered where it cannot be 2xx
    on the stack of the tests. `foreign`: what a row of one person is to others.
    """

    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    scope: Scope = Scope.ORGANIZATION
    by: str = "owner"
    machines: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    alone: bool = False
    streams: bool = False
    nothing: int | None = None
    answered: int | None = None
    foreign: int = 404


def places(value: Any) -> set[str]:
    """The names of rows that a value mentions."""
    if isinstance(value, str):
        return set(PLACE.findall(value))
    if isinstance(value, Mapping):
        return set().union(*(places(one) for one in value.values())) if value else set()
    if isinstance(value, Iterable):
        return set().union(*(places(one) for one in value))
    return set()


def filled(value: Any, rows: Mapping[str, str]) -> Any:
    """The value with rows in the places that name them."""
    if isinstance(value, str):
        return PLACE.sub(lambda found: rows[found[1]], value)
    if isinstance(value, Mapping):
        return {name: filled(one, rows) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [filled(one, rows) for one in value]
    return value
