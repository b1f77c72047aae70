"""Monitoring answers as its OpenAPI document says."""

from __future__ import annotations

from typing import Any

from servicekit.ids import new_id
from tests.contract.conformance import conformance

EXCLUDED = {"events.stream_events": "the answer has no end"}


async def test_every_operation_answers_as_documented(world: Any) -> None:
    await world.ticket("ticket-1")
    await world.logged(1)
    alert, anomaly = new_id(), new_id()
    await world.execute(
        "INSERT INTO alerts (id, organization_id, rule_id, metric_name, severity, current_value, threshold, message,"
        " labels, fingerprint, subject_type, subject_id)"
        " VALUES ($1, 'org-1', 'agent_unresponsive', 'silence', 'error', 3, 2, 'Silent.', '{}', 'f', 'agent', 'a')",
        alert,
    )
    await world.execute(
        "INSERT INTO monitor_anomalies (id, organization_id, subject_type, subject_id, metric_name, anomaly_type,"
        " severity, baseline_value, observed_value, deviation_percent, description, labels)"
        " VALUES ($1, 'org-1', 'agent', 'a', 'silence', 'spike', 'error', 1, 3, 200, 'It is silent.', '{}')",
        anomaly,
    )
    rows = {
        "organization_id": "org-1",
        "project_id": "project-1",
        "ticket_id": "ticket-1",
        "alert_id": alert,
        "anomaly_id": anomaly,
    }
    known = {
        "alerts.acknowledge_alert": {"path_parameters": {"alert_id": alert}, "body": {}},
        "alerts.resolve_alert": {"path_parameters": {"alert_id": alert}, "body": {}},
    }
    found = await conformance(world.running, world.auth(world.owner), rows, excluded=EXCLUDED, known=known)
    assert not found.failures, found
    assert not found.unreached, found
