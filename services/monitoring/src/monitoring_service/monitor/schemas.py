"""Responses of `/api/v1/monitor`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Severity = Literal["info", "warning", "error", "critical"]


class MetricSample(BaseModel):
    """One measured value."""

    metric_name: str
    value: float
    labels: dict[str, str]
    timestamp: datetime


class AnomalyOut(BaseModel):
    """Something that is not as it should be."""

    model_config = ConfigDict(from_attributes=True)

    anomaly_id: str = Field(validation_alias="id")
    metric_name: str
    anomaly_type: str
    severity: str
    baseline_value: float
    observed_value: float
    deviation_percent: float
    description: str
    labels: dict[str, str] | None
    detected_at: datetime
    acknowledged_at: datetime | None
    resolved_at: datetime | None
    organization_id: str


class AnomalyAcknowledgedOut(BaseModel):
    """An anomaly was seen."""

    success: bool
    anomaly_id: str


class DashboardSummary(BaseModel):
    """How the caller's organizations stand now.

    `stale_agents`: operational agents whose heartbeats are missing. `active_locks`: tasks that an attempt holds a lease
    on. `recent_anomalies`: of the last 24 hours. `critical_alerts`: open ones.
    """

    total_tasks_pending: int
    total_tasks_completed: int
    active_agents: int
    stale_agents: int
    active_locks: int
    recent_anomalies: int
    critical_alerts: int
    running_tasks: int
    failed_tasks: int
    active_sandboxes: int
    open_alerts: int
