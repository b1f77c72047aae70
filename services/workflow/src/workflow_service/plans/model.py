"""What a plan says, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PlannedRequirement:
    """One requirement in EARS form. `line`: where its heading is, from 1."""

    key: str
    title: str
    condition: str
    action: str
    criteria: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """One task. `key` and `depends_on` are the plan's symbolic ids; `timeout_s` is None where the plan gives none."""

    key: str
    title: str
    description: str
    depends_on: tuple[str, ...]
    requirements: tuple[str, ...]
    files: tuple[str, ...]
    commands: tuple[str, ...]
    environment: Mapping[str, str]
    capabilities: tuple[str, ...]
    priority: str
    task_type: str
    retries: int
    timeout_s: int | None
    line: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole plan. `budget_micro_usd` is 0 where none is stated; `order` holds task keys in dependency order."""

    title: str
    description: str
    budget_micro_usd: int
    requirements: tuple[PlannedRequirement, ...]
    design: str
    tasks: tuple[PlannedTask, ...]
    order: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a plan. `line` counts from 1."""

    line: int
    message: str


@dataclass(slots=True)
class Problems:
    """Collects problems, at most 50: a plan that is wrong throughout must not make a huge answer."""

    found: list[Problem] = field(default_factory=list)

    def add(self, line: int, message: str) -> None:
        """Note one problem."""
        if len(self.found) < 50:
            self.found.append(Problem(line, message))
