"""Everything this service can say."""

from __future__ import annotations

from monitoring_service.alerts.tables import Alert
from monitoring_service.anomalies.tables import Anomaly
from omoios.monitoring.events.v1 import events_pb2 as pb
from servicekit.db import Tx


def anomaly_detected(tx: Tx, anomaly: Anomaly) -> None:
    """Something is not as it should be, or is worse than before."""
    message = pb.AnomalyDetected(
        anomaly_id=anomaly.id,
        project_id=anomaly.project_id or "",
        subject_type=anomaly.subject_type,
        subject_id=anomaly.subject_id,
        anomaly_type=anomaly.anomaly_type,
        severity=anomaly.severity,
        description=anomaly.description,
        metric_name=anomaly.metric_name,
        baseline_value=anomaly.baseline_value,
        observed_value=anomaly.observed_value,
        deviation_percent=anomaly.deviation_percent,
        labels=anomaly.labels,
    )
    tx.emit(message, aggregate_id=anomaly.id, version=anomaly.version, organization_id=anomaly.organization_id)


def anomaly_acknowledged(tx: Tx, anomaly: Anomaly) -> None:
    """Somebody has seen it."""
    message = pb.AnomalyAcknowledged(
        anomaly_id=anomaly.id, acknowledged_by=anomaly.acknowledged_by or "", project_id=anomaly.project_id or ""
    )
    tx.emit(message, aggregate_id=anomaly.id, version=anomaly.version, organization_id=anomaly.organization_id)


def anomaly_resolved(tx: Tx, anomaly: Anomaly) -> None:
    """It is over."""
    message = pb.AnomalyResolved(
        anomaly_id=anomaly.id,
        project_id=anomaly.project_id or "",
        subject_type=anomaly.subject_type,
        subject_id=anomaly.subject_id,
        metric_name=anomaly.metric_name,
    )
    tx.emit(message, aggregate_id=anomaly.id, version=anomaly.version, organization_id=anomaly.organization_id)


def alert_triggered(tx: Tx, alert: Alert, title: str) -> None:
    """A rule wants somebody to know."""
    message = pb.AlertTriggered(
        alert_id=alert.id,
        rule_id=alert.rule_id,
        severity=alert.severity,
        title=title,
        message=alert.message,
        subject_type=alert.subject_type,
        subject_id=alert.subject_id,
        metric_name=alert.metric_name,
        current_value=alert.current_value,
        threshold=alert.threshold,
        labels=alert.labels,
        project_id=alert.project_id or "",
    )
    tx.emit(message, aggregate_id=alert.id, version=alert.version, organization_id=alert.organization_id)


def alert_acknowledged(tx: Tx, alert: Alert) -> None:
    """Somebody takes care of it."""
    message = pb.AlertAcknowledged(
        alert_id=alert.id, acknowledged_by=alert.acknowledged_by or "", project_id=alert.project_id or ""
    )
    tx.emit(message, aggregate_id=alert.id, version=alert.version, organization_id=alert.organization_id)


def alert_resolved(tx: Tx, alert: Alert) -> None:
    """It is over, by a person's word or because its cause is."""
    message = pb.AlertResolved(
        alert_id=alert.id,
        resolved_by=alert.resolved_by or "",
        note=alert.resolution_note or "",
        project_id=alert.project_id or "",
    )
    tx.emit(message, aggregate_id=alert.id, version=alert.version, organization_id=alert.organization_id)
