"""Requests and responses of `/api/v1/alerts`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Severity = Literal["info", "warning", "error", "critical"]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class AlertOut(BaseModel):
    """An alert."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    rule_id: str
    metric_name: str
    severity: str
    current_value: float
    threshold: float
    message: str
    labels: dict[str, str] | None
    triggered_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    resolved_at: datetime | None
    resolved_by: str | None
    resolution_note: str | None
    organization_id: str
    project_id: str | None


class AlertRuleOut(BaseModel):
    """A rule that makes alerts."""

    rule_id: str
    name: str
    metric_name: str
    condition: str
    severity: str
    routing: list[str]
    enabled: bool


class AcknowledgeAlert(BaseModel):
    """Who takes care, in the caller's words; the caller's own id is what is kept."""

    acknowledged_by: Name


class ResolveAlert(BaseModel):
    """Who ends it, in the caller's words, and why; the caller's own id is what is kept."""

    resolved_by: Name
    note: Annotated[str, Field(max_length=2_000)] | None = None
