"""Calls of monitoring's operations."""

from __future__ import annotations

from tests.e2e.access.recipe import Recipe, Scope

RECIPES: dict[str, Recipe] = {
    "events.stream_events": Recipe(scope=Scope.ONESELF, streams=True),
    "monitor.get_dashboard": Recipe(scope=Scope.LISTS),
    "monitor.get_metrics": Recipe(scope=Scope.LISTS),
    "monitor.list_anomalies": Recipe(scope=Scope.LISTS),
    "monitor.acknowledge_anomaly": Recipe(),
    "alerts.list_alerts": Recipe(scope=Scope.LISTS),
    "alerts.list_alert_rules": Recipe(scope=Scope.ONESELF),
    "alerts.get_alert": Recipe(),
    "alerts.acknowledge_alert": Recipe(body={"acknowledged_by": "me"}),
    "alerts.resolve_alert": Recipe(body={"resolved_by": "me"}),
}
