"""Every error this service answers with."""

from __future__ import annotations

from servicekit.errors import ErrorSpec, Kind

STREAMS_EXHAUSTED = ErrorSpec(
    "monitoring.streams_exhausted", Kind.UNAVAILABLE, "No further event stream can be opened now.", 5.0
)
ANOMALY_NOT_FOUND = ErrorSpec("monitoring.anomaly_not_found", Kind.NOT_FOUND, "This anomaly does not exist.")
ALERT_NOT_FOUND = ErrorSpec("monitoring.alert_not_found", Kind.NOT_FOUND, "This alert does not exist.")
ALERT_RESOLVED = ErrorSpec("monitoring.alert_resolved", Kind.CONFLICT, "This alert is resolved already.")
