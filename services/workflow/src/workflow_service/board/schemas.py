"""What the board answers."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict


class BoardTicket(BaseModel):
    """A card."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    title: str
    phase_id: str
    priority: str
    status: str
    approval_status: str | None
    is_blocked: bool
    project_id: str
    context: dict[str, Any] | None


class BoardColumn(BaseModel):
    """A column with its newest cards; `current_count` counts all of them."""

    id: str
    name: str
    description: str | None
    sequence_order: int
    order: int
    phase_mappings: list[str]
    wip_limit: int | None
    current_count: int
    wip_exceeded: bool
    tickets: list[BoardTicket]


class BoardView(BaseModel):
    """The board."""

    columns: list[BoardColumn]


class MoveBody(BaseModel):
    """Which ticket goes where; `force` skips limits and checks."""

    ticket_id: UUID
    target_column_id: str
    force: bool = False


class Moved(BaseModel):
    """The ticket was moved."""

    ticket_id: str
    new_phase: str
    new_column: str
    status: str


class ColumnStats(BaseModel):
    """How full a column is. `utilization`: tickets per allowed ticket."""

    column_id: str
    name: str
    ticket_count: int
    wip_limit: int | None
    utilization: float | None
    wip_exceeded: bool


class WipViolation(BaseModel):
    """A column with more tickets than allowed."""

    column_id: str
    column_name: str
    wip_limit: int
    current_count: int
    excess: int


class AutoTransition(BaseModel):
    """What the automatic move did."""

    ticket_id: str
    transitioned: bool
    new_phase: str | None = None
    reason: str | None = None


class ColumnOut(BaseModel):
    """A column's definition; `phase_mappings` and `order` repeat it in the web client's names."""

    id: str
    name: str
    description: str | None
    sequence_order: int
    order: int
    phase_mapping: list[str]
    phase_mappings: list[str]
    wip_limit: int | None
    is_terminal: bool
    auto_transition_to: str | None
    color_theme: str | None


class ProjectStats(BaseModel):
    """Counts of a project. `total_commits` is 0 while vcs is away; `active_agents` are distinct ones."""

    project_id: str
    total_tickets: int
    tickets_by_status: dict[str, int]
    tickets_by_phase: dict[str, int]
    active_agents: int
    total_commits: int
