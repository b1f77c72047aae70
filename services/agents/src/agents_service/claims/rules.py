"""Decisions about claims: what a task's configuration asks of its sandbox, and what of a claim failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CLAIM_MAX = 50
WAIT_MAX_S = 30
DEFAULT_TIMEOUT_S = 3_600


def engine_of(config: Mapping[str, Any]) -> str:
    """The engine that a task asks for; `command` when it names none."""
    engine = config.get("engine")
    return engine if isinstance(engine, str) and engine else "command"


def needs_repository(config: Mapping[str, Any], has_repository: bool) -> bool:
    """Whether the sandbox gets a clone: the project has a repository and the task does not decline it."""
    return has_repository and config.get("needs_repository", True) is not False


def labels_of(capabilities: list[str], labels: list[str]) -> list[str]:
    """What the claimer offers: the agent's capabilities and the labels of this claim, lower case, each once."""
    return sorted({token.strip().lower() for token in [*capabilities, *labels] if token.strip()})
