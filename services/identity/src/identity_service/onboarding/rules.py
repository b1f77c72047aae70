"""Pure rules of the onboarding: how steps, lists and data come together, and which step is next."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

FIRST_STEP = "welcome"
LAST_STEP = "complete"
STEP_MAX = 50
MAX_ITEMS = 100
DATA_MAX_BYTES = 32_768

# What is missing → the step that brings it, in the order in which it is asked for (the public contract's).
_NEXT = (("github", "github"), ("organization", "welcome"), ("repo", "repo"), ("plan", "plan"))


def united(one: Iterable[str], other: Iterable[str]) -> list[str]:
    """All entries of both lists, each once, in the order of their first appearance."""
    return list(dict.fromkeys([*one, *other]))


def merged(current: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Both objects in a new one; a key of `changes` replaces the one before, all others stay."""
    return {**current, **changes}


def problem_of(data: Mapping[str, Any], *lists: Sequence[str]) -> str | None:
    """Why progress cannot be kept; None when it can."""
    if len(json.dumps(data)) > DATA_MAX_BYTES:
        return f"data must not exceed {DATA_MAX_BYTES} bytes as JSON"
    if any(len(items) > MAX_ITEMS for items in lists):
        return f"a list must not have more than {MAX_ITEMS} entries"
    return None


def suggested_step(done: Mapping[str, bool]) -> str:
    """The step of the first thing that is missing, `complete` when nothing is."""
    return next((step for thing, step in _NEXT if not done[thing]), LAST_STEP)
