"""What the consumers of monitoring are told."""

from __future__ import annotations

from typing import Any

from omoios.agents.events.v1 import events_pb2 as agents
from omoios.monitoring.events.v1 import events_pb2 as monitoring
from omoios.workflow.events.v1 import events_pb2 as workflow
from servicekit.db.event_options import event_type
from servicekit.events.registry import SERVICES, events_of
from tests.convergence.harness import ORG, Fact, Scenario
from tests.convergence.samples import sample, task


def log() -> Scenario:
    """Everything that any service can say."""
    kinds = [kind for service in SERVICES for kind in events_of(service).values()]
    return Scenario(
        [Fact(sample(kind), f"{event_type(kind).aggregate}-1", place) for place, kind in enumerate(kinds, start=1)],
        # The log numbers events in the order in which they come, from six streams at once.
        made={"event_log": ["logged_at", "first_sequence", "last_sequence"]},
    )


def replica() -> Scenario:
    """Tasks go through every state, one of them twice; their sandboxes open and close."""

    def told(kind: Any, name: str, version: int, status: str, **values: Any) -> Fact:
        return Fact(kind(task=task(name, status, **values)), name, version)

    def sandbox(kind: Any, name: str, version: int, **values: Any) -> Fact:
        body = kind(sandbox_id=name, agent_id="a-1", task_id="t-1", project_id="project-1", **values)
        return Fact(body, name, version)

    w = workflow
    return Scenario(
        [
            told(w.TaskCreated, "t-1", 1, "pending"),
            told(w.TaskAssigned, "t-1", 2, "assigned"),
            sandbox(agents.SandboxStarted, "s-1", 1),
            told(w.TaskStarted, "t-1", 3, "running"),
            told(w.TaskRetryScheduled, "t-1", 4, "pending"),
            sandbox(agents.SandboxEnded, "s-1", 2, reason="failed"),
            told(w.TaskUpdated, "t-1", 5, "pending", priority="HIGH"),
            told(w.TaskAssigned, "t-1", 6, "assigned", priority="HIGH"),
            sandbox(agents.SandboxStarted, "s-2", 1),
            told(w.TaskStarted, "t-1", 7, "running", priority="HIGH"),
            told(w.TaskCompleted, "t-1", 8, "completed", priority="HIGH"),
            sandbox(agents.SandboxEnded, "s-2", 2, reason="completed"),
            told(w.TaskCreated, "t-2", 1, "pending"),
            told(w.TaskCancelled, "t-2", 2, "cancelled"),
            told(w.TaskCreated, "t-3", 1, "pending"),
            told(w.TaskAssigned, "t-3", 2, "assigned"),
            told(w.TaskRequeued, "t-3", 3, "pending"),
            told(w.TaskAssigned, "t-3", 4, "assigned"),
            told(w.TaskStarted, "t-3", 5, "running"),
            told(w.TaskFailed, "t-3", 6, "failed"),
            sandbox(agents.SandboxStarted, "s-3", 1),
        ]
    )


def anomalies() -> Scenario:
    """Agents fall silent and come back, stay silent, or are ended while they are silent."""

    def registered(name: str) -> Fact:
        return Fact(agents.AgentRegistered(agent_id=name, agent_type="worker", status="IDLE"), name, 1)

    def updated(name: str, version: int, status: str) -> Fact:
        return Fact(agents.AgentUpdated(agent_id=name, status=status), name, version)

    def silent(name: str, version: int, missed: int) -> Fact:
        return Fact(agents.AgentWentStale(agent_id=name, missed_heartbeats=missed), name, version)

    def heard(name: str, version: int) -> Fact:
        return Fact(agents.AgentRecovered(agent_id=name), name, version)

    return Scenario(
        [
            registered("a-1"),
            updated("a-1", 2, "RUNNING"),
            silent("a-1", 2, 1),
            updated("a-1", 3, "DEGRADED"),
            heard("a-1", 4),
            registered("a-2"),
            silent("a-2", 1, 1),
            updated("a-2", 2, "DEGRADED"),
            silent("a-2", 2, 3),
            registered("a-3"),
            silent("a-3", 1, 2),
            updated("a-3", 2, "TERMINATED"),
            silent("a-1", 4, 2),
        ],
        made={"monitor_anomalies": ["id", "resolved_at"]},
        path={"monitor_anomalies": ["version"]},
        only={"monitor_anomalies": "resolved_at IS NULL"},
        why="An anomaly that was over before it was heard of is not noted; a version counts how often it worsened.",
    )


def alerts() -> Scenario:
    """Anomalies that are open or over, tickets that are blocked, unblocked and change their priority meanwhile."""

    def detected(name: str, agent: str, observed: float) -> Fact:
        body = monitoring.AnomalyDetected(
            anomaly_id=name,
            subject_type="agent",
            subject_id=agent,
            metric_name="agent.heartbeat.missed",
            observed_value=observed,
        )
        return Fact(body, name)

    def over(name: str, agent: str) -> Fact:
        body = monitoring.AnomalyResolved(
            anomaly_id=name, subject_type="agent", subject_id=agent, metric_name="agent.heartbeat.missed"
        )
        return Fact(body, name, 2)

    def ticket(kind: Any, name: str, version: int, **values: Any) -> Fact:
        return Fact(kind(ticket_id=name, project_id="project-1", **values), name, version)

    def anomaly(name: str, agent: str, resolved: str) -> str:
        return f"""
            INSERT INTO monitor_anomalies (id, organization_id, subject_type, subject_id, metric_name, anomaly_type,
                severity, baseline_value, observed_value, deviation_percent, description, labels, resolved_at)
            VALUES ('{name}', '{ORG}', 'agent', '{agent}', 'agent.heartbeat.missed', 'threshold_breach', 'critical',
                0, 3, 0, 'Agent {agent} has missed 3 heartbeats.', '{{"agent_id": "{agent}"}}', {resolved});"""

    w = workflow
    return Scenario(
        [
            detected("anomaly-1", "a-1", 1),
            detected("anomaly-1", "a-1", 3),
            detected("anomaly-2", "a-2", 3),
            over("anomaly-2", "a-2"),
            ticket(w.TicketCreated, "ticket-1", 1, title="One", priority="CRITICAL"),
            ticket(w.TicketBlocked, "ticket-1", 2, blocker_type="environment"),
            ticket(w.TicketCreated, "ticket-2", 1, title="Two", priority="CRITICAL"),
            ticket(w.TicketBlocked, "ticket-2", 2, blocker_type="dependency"),
            ticket(w.TicketUnblocked, "ticket-2", 3),
            ticket(w.TicketCreated, "ticket-3", 1, title="Three", priority="LOW"),
            ticket(w.TicketBlocked, "ticket-3", 2, blocker_type="failing_checks"),
            ticket(w.TicketUpdated, "ticket-3", 3, changes_json='{"priority": "CRITICAL"}'),
            ticket(w.TicketCreated, "ticket-4", 1, title="Four", priority="CRITICAL"),
            ticket(w.TicketBlocked, "ticket-4", 2, blocker_type="dependency"),
            ticket(w.TicketUpdated, "ticket-4", 3, changes_json='{"priority": "LOW", "title": "Fourth"}'),
        ],
        seed=anomaly("anomaly-1", "a-1", "NULL") + anomaly("anomaly-2", "a-2", "now()"),
        made={"alerts": ["id", "resolved_at"], "monitor_anomalies": ["resolved_at"]},
        path={"alerts": ["version"]},
        only={"alerts": "resolved_at IS NULL"},
        why="What was over before it was heard of raises no alert; a version counts how often it was raised anew.",
    )
