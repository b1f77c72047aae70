"""Who may call what of this service. The event WebSocket guards itself (`event_streams/routes.py`)."""

from __future__ import annotations

from servicekit.auth import Access, AccessTable

ACCESS = AccessTable(
    operations={
        # What a stream shows follows from the permissions in each organization.
        "events.stream_events": Access(),
        "monitor.get_dashboard": Access("monitor:read"),
        "monitor.get_metrics": Access("monitor:read"),
        "monitor.list_anomalies": Access("monitor:read"),
        "monitor.acknowledge_anomaly": Access("monitor:write"),
        "alerts.list_alerts": Access("monitor:read"),
        # The rules are the platform's and the same for everybody.
        "alerts.list_alert_rules": Access(),
        "alerts.get_alert": Access("monitor:read"),
        "alerts.acknowledge_alert": Access("monitor:write"),
        "alerts.resolve_alert": Access("monitor:write"),
    },
    consumers={
        "log": "keeps every event for a day, for streams and their resumption",
        "replica": "counts of tasks and sandboxes",
        "anomalies": "agents that fall silent",
        "alerts": "what a rule wants somebody to know of",
    },
)
