"""The board: its columns, and what fits into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `phases`: a ticket moved here goes to the first of them."""

    id: str
    name: str
    description: str
    sequence_order: int
    phases: tuple[str, ...]
    wip_limit: int | None
    is_terminal: bool
    auto_transition_to: str | None
    color_theme: str


COLUMNS: tuple[Column, ...] = (
    Column(
        "backlog", "📋 Backlog", "Tickets that wait to be taken up", 0, ("PHASE_BACKLOG",), None, False, None, "gray"
    ),
    Column(
        "analyzing",
        "🔍 Analyzing",
        "Requirements and design",
        1,
        ("PHASE_REQUIREMENTS", "PHASE_DESIGN"),
        5,
        False,
        None,
        "blue",
    ),
    Column(
        "building", "🔨 Building", "The change is made", 2, ("PHASE_IMPLEMENTATION",), 10, False, "testing", "yellow"
    ),
    Column("testing", "🧪 Testing", "The change is checked", 3, ("PHASE_TESTING",), 8, False, None, "blue"),
    Column(
        "deploying",
        "🚀 Deploying",
        "The change is brought to its users",
        4,
        ("PHASE_DEPLOYMENT",),
        3,
        False,
        "done",
        "green",
    ),
    Column("done", "✅ Done", "Nothing is left to do", 5, ("PHASE_DONE",), None, True, None, "green"),
    Column("blocked", "🚫 Blocked", "Something outside stops the work", 6, ("PHASE_BLOCKED",), None, True, None, "red"),
)
BY_ID: Mapping[str, Column] = {column.id: column for column in COLUMNS}
BY_PHASE: Mapping[str, Column] = {phase: column for column in COLUMNS for phase in column.phases}


def count_of(column: Column, by_phase: Mapping[str, int]) -> int:
    """Tickets in a column."""
    return sum(by_phase.get(phase, 0) for phase in column.phases)


def is_full(column: Column, count: int) -> bool:
    """Whether one more would be one too many."""
    return column.wip_limit is not None and count >= column.wip_limit


def exceeds(column: Column, count: int) -> bool:
    """Whether there are more than allowed."""
    return column.wip_limit is not None and count > column.wip_limit
