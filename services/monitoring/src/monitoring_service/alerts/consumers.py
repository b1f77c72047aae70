"""What makes alerts due and what ends them."""

from __future__ import annotations

from monitoring_service.alerts.service import AlertService
from omoios.monitoring.events.v1 import events_pb2 as monitoring
from omoios.workflow.events.v1 import events_pb2 as workflow
from servicekit.db import Tx
from servicekit.events import Consumers, Event


def consumers(alerts: AlertService) -> Consumers:
    """Anomalies, and tickets that are blocked."""
    c = Consumers("alerts")

    @c.on(monitoring.AnomalyDetected)
    async def anomaly_detected(tx: Tx, event: Event[monitoring.AnomalyDetected]) -> None:
        body = event.body
        await alerts.anomaly_detected(tx, body.anomaly_id, body.metric_name, body.observed_value)

    @c.on(monitoring.AnomalyResolved)
    async def anomaly_resolved(tx: Tx, event: Event[monitoring.AnomalyResolved]) -> None:
        body = event.body
        await alerts.anomaly_resolved(
            tx, event.organization_id or "", body.subject_type, body.subject_id, body.metric_name
        )

    @c.on(workflow.TicketCreated)
    async def ticket_created(tx: Tx, event: Event[workflow.TicketCreated]) -> None:
        body = event.body
        await alerts.ticket_told(
            tx,
            body.ticket_id,
            event.organization_id or "",
            body.project_id,
            body.title,
            body.priority,
            event.version,
        )

    @c.on(workflow.TicketUpdated)
    async def ticket_updated(tx: Tx, event: Event[workflow.TicketUpdated]) -> None:
        body = event.body
        await alerts.ticket_changed(
            tx, body.ticket_id, event.organization_id or "", body.project_id, body.changes_json, event.version
        )

    @c.on(workflow.TicketBlocked)
    async def ticket_blocked(tx: Tx, event: Event[workflow.TicketBlocked]) -> None:
        body = event.body
        blocker = body.blocker_type
        await alerts.ticket_blocked(
            tx, body.ticket_id, event.organization_id or "", body.project_id, blocker, event.version
        )

    @c.on(workflow.TicketUnblocked)
    async def ticket_unblocked(tx: Tx, event: Event[workflow.TicketUnblocked]) -> None:
        body = event.body
        await alerts.ticket_unblocked(tx, body.ticket_id, event.organization_id or "", body.project_id, event.version)

    return c
