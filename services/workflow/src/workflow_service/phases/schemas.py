"""What the phase operations take and answer."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints

Short = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class PhaseInfo(BaseModel):
    """One phase of the registry."""

    id: str
    name: str
    description: str
    sequence_order: int
    allowed_transitions: list[str]
    mapped_status: str
    execution_mode: str
    continuous_mode: bool
    is_terminal: bool
    skippable: bool


class GateValidation(BaseModel):
    """What a validation of a gate found."""

    gate_status: str
    requirements_met: bool
    blocking_reasons: list[str]


class GateStatus(BaseModel):
    """How a gate stands. `validation_status`: ready, blocked, waiting_tasks or not_configured."""

    requirements_met: bool
    missing_artifacts: list[str]
    validation_status: str


class ArtifactCreate(BaseModel):
    """Evidence for a gate."""

    phase_id: str
    artifact_type: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    artifact_path: Annotated[str, StringConstraints(max_length=1000)] | None = None
    artifact_content: dict[str, Any] | None = None
    collected_by: Short = "api"


class ArtifactOut(BaseModel):
    """Evidence as it is stored."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    artifact_type: str
    phase_id: str
    artifact_path: str | None
    artifact_content: dict[str, Any] | None


class PhaseTransition(BaseModel):
    """A move named by phase."""

    to_phase: str
    reason: Annotated[str, StringConstraints(max_length=1000)] | None = None
    force: bool = False
    spawn_tasks: bool = True


class PhaseMove(BaseModel):
    """What a move did."""

    success: bool
    ticket_id: str
    from_phase: str
    to_phase: str
    from_status: str | None
    to_status: str | None
    reason: str | None
    artifacts_collected: int
    tasks_spawned: int
    blocking_reasons: list[str]


class CheckAdvance(BaseModel):
    """Whether the ticket went on by itself, and what stops it."""

    success: bool
    ticket_id: str
    advanced: bool
    from_phase: str | None
    to_phase: str | None
    from_status: str | None
    to_status: str | None
    blocking_reasons: list[str]


class CanTransition(BaseModel):
    """Whether the ticket may move there."""

    ticket_id: str
    to_phase: str
    can_transition: bool
    blocking_reasons: list[str]


class SpawnedTasks(BaseModel):
    """Tasks that were made for a phase."""

    ticket_id: str
    phase: str | None
    phase_id: str | None
    tasks_spawned: int
    task_ids: list[str]
    error: str | None
