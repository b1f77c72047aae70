"""`/api/v1/monitor`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from monitoring_service.errors import ANOMALY_NOT_FOUND
from monitoring_service.monitor.schemas import (
    AnomalyAcknowledgedOut,
    AnomalyOut,
    DashboardSummary,
    MetricSample,
    Severity,
)
from monitoring_service.monitor.service import MonitorService
from servicekit.auth import CurrentUser
from servicekit.http import Page, problems

Hours = Annotated[int, Query(ge=1, le=24 * 30)]
Phase = Annotated[str | None, Query(max_length=100)]


def router(monitor: MonitorService) -> APIRouter:
    """Dashboard, metrics and anomalies of the caller's organizations."""
    routes = APIRouter(prefix="/api/v1/monitor", tags=["monitor"])

    @routes.get("/dashboard")
    async def get_dashboard(user: CurrentUser) -> DashboardSummary:
        """How the caller's organizations stand now."""
        return await monitor.dashboard(user)

    @routes.get("/metrics")
    async def get_metrics(user: CurrentUser, phase_id: Phase = None) -> list[MetricSample]:
        """Samples of now; `phase_id` narrows those of tasks."""
        return await monitor.metrics(user, phase_id)

    @routes.get("/anomalies")
    async def list_anomalies(
        user: CurrentUser, page: Page, hours: Hours = 24, severity: Severity | None = None
    ) -> list[AnomalyOut]:
        """Anomalies of the last hours, newest first."""
        found = await monitor.recent_anomalies(user, hours, severity, limit=page.limit, offset=page.offset)
        return [AnomalyOut.model_validate(anomaly) for anomaly in found]

    @routes.post("/anomalies/{anomaly_id}/acknowledge", responses=problems(ANOMALY_NOT_FOUND))
    async def acknowledge_anomaly(anomaly_id: str, user: CurrentUser) -> AnomalyAcknowledgedOut:
        """Say that an anomaly was seen; the first one who did stays."""
        anomaly = await monitor.acknowledge(user, anomaly_id)
        return AnomalyAcknowledgedOut(success=True, anomaly_id=anomaly.id)

    return routes
