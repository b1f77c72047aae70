"""Alerts: due, seen, over."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from monitoring_service import events, replica
from monitoring_service.alerts import rules, store
from monitoring_service.alerts.tables import Alert, AlertRule
from monitoring_service.anomalies.service import AnomalyService
from monitoring_service.errors import ALERT_NOT_FOUND, ALERT_RESOLVED
from monitoring_service.replica import TicketState
from servicekit.auth import Principal
from servicekit.db import Database, Tx
from servicekit.ids import new_id

SYSTEM = "system"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Subject:
    """What an alert is about."""

    organization_id: str
    project_id: str
    type: str
    id: str
    labels: Mapping[str, str]
    description: str


class AlertService:
    """Everything about alerts."""

    def __init__(self, db: Database, anomalies: AnomalyService) -> None:
        self.db = db
        self.anomalies = anomalies

    async def anomaly_detected(self, tx: Tx, anomaly_id: str, metric_name: str, observed: float) -> None:
        """Ask the rules about an anomaly that is open still."""
        anomaly = await self.anomalies.hold(tx, anomaly_id)
        if anomaly is None:
            return
        subject = Subject(
            anomaly.organization_id,
            anomaly.project_id or "",
            anomaly.subject_type,
            anomaly.subject_id,
            anomaly.labels,
            anomaly.description,
        )
        # What was observed since is newer than what the event tells.
        value = max(observed, anomaly.observed_value)
        await self._evaluate(tx, subject, rules.anomaly_readings(metric_name, value))

    async def anomaly_resolved(
        self, tx: Tx, organization_id: str, subject_type: str, subject_id: str, metric_name: str
    ) -> None:
        """End the alerts that an anomaly led to, unless the same has begun again."""
        if await self.anomalies.is_open(tx, subject_type, subject_id, metric_name):
            return
        metrics = rules.anomaly_readings(metric_name, 0.0)
        await self._resolve(tx, organization_id, subject_type, subject_id, metrics, "The anomaly is over.")

    async def ticket_told(
        self, tx: Tx, ticket_id: str, organization_id: str, project_id: str, title: str, priority: str, version: int
    ) -> None:
        """Remember what a ticket is; its being blocked may have been heard of before."""
        known = await replica.write_ticket(tx, ticket_id, organization_id, project_id, title, priority, version)
        await self._weigh(tx, ticket_id, known)

    async def ticket_changed(
        self, tx: Tx, ticket_id: str, organization_id: str, project_id: str, changes_json: str, version: int
    ) -> None:
        """Remember another priority; a blocked ticket is critical from now on, or no more."""
        try:
            priority = json.loads(changes_json or "{}").get("priority")
        except (ValueError, AttributeError):
            return
        if isinstance(priority, str):
            known = await replica.write_ticket(tx, ticket_id, organization_id, project_id, None, priority, version)
            await self._weigh(tx, ticket_id, known)

    async def ticket_blocked(
        self, tx: Tx, ticket_id: str, organization_id: str, project_id: str, blocker: str, version: int
    ) -> None:
        """Ask the rules about a blocked ticket, unless it was unblocked since."""
        known = await replica.write_ticket_blocked(
            tx, ticket_id, organization_id, project_id, blocked=True, version=version, blocker=blocker
        )
        if known is not None:
            await self._weigh(tx, ticket_id, known)

    async def ticket_unblocked(
        self, tx: Tx, ticket_id: str, organization_id: str, project_id: str, version: int
    ) -> None:
        """End the alerts about a ticket, unless it was blocked again since."""
        known = await replica.write_ticket_blocked(
            tx, ticket_id, organization_id, project_id, blocked=False, version=version
        )
        if known is not None:
            metrics = rules.ticket_readings("CRITICAL")
            await self._resolve(tx, organization_id, "ticket", ticket_id, metrics, "The ticket is unblocked.")

    async def _weigh(self, tx: Tx, ticket_id: str, known: TicketState) -> None:
        """Have the alerts of a blocked ticket say what is known of it now, whatever was heard of last."""
        if not known.is_blocked:
            return
        readings = rules.ticket_readings(known.priority)
        labels = {"ticket_id": ticket_id, "project_id": known.project_id}
        description = f"Ticket {known.title or ticket_id} is blocked: {known.blocker or 'no reason given'}."
        subject = Subject(known.organization_id, known.project_id, "ticket", ticket_id, labels, description)
        await self._evaluate(tx, subject, readings)
        gone = {name: value for name, value in rules.ticket_readings("CRITICAL").items() if name not in readings}
        if gone and known.priority is not None:
            await self._resolve(
                tx, known.organization_id, "ticket", ticket_id, gone, "The ticket is no longer critical."
            )

    async def open_alerts(
        self, principal: Principal, severity: str | None, *, limit: int, offset: int
    ) -> Sequence[Alert]:
        """Open alerts of the principal's organizations, newest first."""
        organizations = principal.organizations_with("monitor:read")
        if not organizations:
            return []
        async with self.db.reader() as tx:
            return await store.open_alerts(tx, organizations, severity, limit=limit, offset=offset)

    async def rules(self) -> Sequence[AlertRule]:
        """All rules; they are the same for all organizations."""
        async with self.db.reader() as tx:
            return await store.rules(tx)

    async def get(self, principal: Principal, alert_id: str) -> Alert:
        """One alert. Raises `monitoring.alert_not_found`."""
        async with self.db.reader() as tx:
            alert = await store.get(tx, alert_id)
        if alert is None:
            raise ALERT_NOT_FOUND()
        principal.require("monitor:read", alert.organization_id, ALERT_NOT_FOUND)
        return alert

    async def acknowledge(self, principal: Principal, alert_id: str) -> Alert:
        """Note who takes care; the first one stays.

        Raises `monitoring.alert_not_found`, `monitoring.alert_resolved`.
        """
        async with self.db.uow() as tx:
            alert = await self._writable(tx, principal, alert_id)
            if alert.resolved_at is not None:
                raise ALERT_RESOLVED()
            if alert.acknowledged_at is None:
                alert = await store.acknowledge(tx, alert_id, principal.user_id)
                events.alert_acknowledged(tx, alert)
            return alert

    async def resolve(self, principal: Principal, alert_id: str, note: str | None) -> Alert:
        """End an alert; one that is over stays as it is. Raises `monitoring.alert_not_found`."""
        async with self.db.uow() as tx:
            alert = await self._writable(tx, principal, alert_id)
            if alert.resolved_at is None:
                alert = await store.resolve(tx, alert_id, principal.user_id, note)
                events.alert_resolved(tx, alert)
            return alert

    async def _writable(self, tx: Tx, principal: Principal, alert_id: str) -> Alert:
        alert = await store.get(tx, alert_id, lock=True)
        if alert is None:
            raise ALERT_NOT_FOUND()
        principal.require("monitor:write", alert.organization_id, ALERT_NOT_FOUND)
        return alert

    async def _evaluate(self, tx: Tx, subject: Subject, readings: Mapping[str, float]) -> None:
        for rule in await store.rules_about(tx, list(readings)):
            value = readings[rule.metric_name]
            try:
                condition = rules.parse_condition(rule.condition)
            except ValueError as error:
                _log.error("alert_rule_unreadable", rule=rule.rule_id, error=str(error))
                continue
            if not condition.holds(value):
                continue
            alert, is_new = await store.trigger(
                tx,
                id=new_id(),
                organization_id=subject.organization_id,
                project_id=subject.project_id or None,
                rule_id=rule.rule_id,
                metric_name=rule.metric_name,
                severity=rule.severity,
                current_value=value,
                threshold=condition.threshold,
                message=rules.alert_message(rule.name, rule.metric_name, value, subject.description),
                labels=dict(subject.labels),
                fingerprint=rules.fingerprint(subject.labels),
                subject_type=subject.type,
                subject_id=subject.id,
            )
            if is_new:
                events.alert_triggered(tx, alert, rule.name)

    async def _resolve(
        self,
        tx: Tx,
        organization_id: str,
        subject_type: str,
        subject_id: str,
        metrics: Mapping[str, float],
        note: str,
    ) -> None:
        ended = await store.resolve_subject(tx, organization_id, subject_type, subject_id, list(metrics), SYSTEM, note)
        for alert in ended:
            events.alert_resolved(tx, alert)
