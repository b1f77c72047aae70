"""`/api/v1/alerts`."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from monitoring_service.alerts.schemas import AcknowledgeAlert, AlertOut, AlertRuleOut, ResolveAlert, Severity
from monitoring_service.alerts.service import AlertService
from monitoring_service.errors import ALERT_NOT_FOUND, ALERT_RESOLVED
from servicekit.auth import CurrentUser
from servicekit.http import Page, problems


def router(alerts: AlertService) -> APIRouter:
    """Open alerts, their rules, and what people do about them."""
    routes = APIRouter(prefix="/api/v1/alerts", tags=["alerts"])

    @routes.get("")
    async def list_alerts(user: CurrentUser, page: Page, severity: Severity | None = None) -> list[AlertOut]:
        """Open alerts of the caller's organizations, newest first."""
        found = await alerts.open_alerts(user, severity, limit=page.limit, offset=page.offset)
        return [AlertOut.model_validate(alert) for alert in found]

    @routes.get("/rules")
    async def list_alert_rules(user: CurrentUser) -> list[AlertRuleOut]:
        """The rules that make alerts."""
        return [
            AlertRuleOut(
                rule_id=rule.rule_id,
                name=rule.name,
                metric_name=rule.metric_name,
                condition=rule.condition,
                severity=rule.severity,
                routing=rule.routing,
                enabled=rule.is_enabled,
            )
            for rule in await alerts.rules()
        ]

    @routes.get("/{alert_id}", responses=problems(ALERT_NOT_FOUND))
    async def get_alert(alert_id: UUID, user: CurrentUser) -> AlertOut:
        """One alert, open or over."""
        return AlertOut.model_validate(await alerts.get(user, str(alert_id)))

    @routes.post("/{alert_id}/acknowledge", responses=problems(ALERT_NOT_FOUND, ALERT_RESOLVED))
    async def acknowledge_alert(alert_id: UUID, body: AcknowledgeAlert, user: CurrentUser) -> AlertOut:
        """Take care of an alert; the first one who did stays."""
        return AlertOut.model_validate(await alerts.acknowledge(user, str(alert_id)))

    @routes.post("/{alert_id}/resolve", responses=problems(ALERT_NOT_FOUND))
    async def resolve_alert(alert_id: UUID, body: ResolveAlert, user: CurrentUser) -> AlertOut:
        """End an alert; one that is over stays as it is."""
        return AlertOut.model_validate(await alerts.resolve(user, str(alert_id), body.note))

    return routes
