"""Requests and answers of `/onboarding`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, model_validator

from identity_service.onboarding import rules
from identity_service.onboarding.tables import Onboarding

Step = Annotated[str, Field(min_length=1, max_length=rules.STEP_MAX)]
Steps = Annotated[list[Step], Field(max_length=rules.MAX_ITEMS)]


class _Bounded(BaseModel):
    data: dict[str, Any] = {}

    @model_validator(mode="after")
    def _small(self) -> Self:
        problem = rules.problem_of(self.data)
        if problem is not None:
            raise ValueError(problem)
        return self


class SetStep(_Bounded):
    """The step that begins now; the one before counts as done. `data` is merged."""

    step: Step


class Complete(_Bounded):
    """The end of the onboarding; `data` is merged."""


class Sync(_Bounded):
    """What a client noted while it was not connected, made from version `local_sync_version`."""

    current_step: Step
    completed_steps: Steps
    completed_checklist_items: Steps
    local_sync_version: Annotated[int, Field(ge=0)]


class StatusOut(BaseModel):
    """Where a user stands."""

    is_completed: bool
    current_step: str
    completed_steps: list[str]
    completed_checklist_items: list[str]
    completed_at: datetime | None
    data: dict[str, Any]
    sync_version: int

    @classmethod
    def of(cls, row: Onboarding) -> StatusOut:
        """From the row."""
        values = {name: getattr(row, name) for name in cls.model_fields if name != "is_completed"}
        return cls(is_completed=row.completed_at is not None, **values)


class DetectedOut(BaseModel):
    """Whether a thing is there, and which."""

    completed: bool
    current: dict[str, Any] | None
    can_change: bool = True

    @classmethod
    def of(cls, current: dict[str, Any] | None) -> DetectedOut:
        """Done when there is one."""
        return cls(completed=current is not None, current=current)


class DetectOut(BaseModel):
    """What is there already, and the step that is missing next."""

    github: DetectedOut
    organization: DetectedOut
    repo: DetectedOut
    plan: DetectedOut
    suggested_step: str
