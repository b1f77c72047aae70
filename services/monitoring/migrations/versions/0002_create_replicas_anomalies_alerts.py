"""Create replicas, anomalies and alerts; the default alert rules.

Revision: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_OPEN = sa.text("resolved_at IS NULL")
_RULES = (
    ("agent_heartbeat_missed", "agent.heartbeat.missed", "value > 2", "warning", ["slack", "email"]),
    ("agent_anomaly_high", "agent.anomaly_score", "value >= 0.8", "critical", ["slack", "webhook"]),
    ("agent_unresponsive", "agent.status.unresponsive", "value > 0", "error", ["slack", "email", "webhook"]),
    ("ticket_blocked", "ticket.blocked", "value > 0", "warning", ["slack"]),
    ("ticket_blocked_critical", "ticket.blocked.critical", "value > 0", "critical", ["slack", "email", "webhook"]),
    (
        "watchdog_remediation_failed",
        "watchdog.remediation.failed",
        "value > 0",
        "critical",
        ["slack", "email", "webhook"],
    ),
    ("watchdog_escalation", "watchdog.escalation", "value > 0", "critical", ["slack", "email", "webhook"]),
)


def upgrade() -> None:
    op.create_table(
        "replica_tasks",
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("ticket_id", sa.Text(), nullable=False),
        sa.Column("phase_id", sa.Text(), nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", _TIME, nullable=True),
        sa.Column("started_at", _TIME, nullable=True),
        sa.Column("completed_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_replica_tasks")),
    )
    op.create_index("ix_replica_tasks_status", "replica_tasks", ["organization_id", "status", "phase_id"])
    op.create_index("ix_replica_tasks_completed", "replica_tasks", ["organization_id", "completed_at"])
    op.create_table(
        "replica_tickets",
        sa.Column("ticket_id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("priority", sa.Text(), nullable=True),
        sa.Column("priority_version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("is_blocked", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("blocked_version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("ticket_id", name=op.f("pk_replica_tickets")),
    )
    op.create_table(
        "replica_agents",
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("agent_type", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=True),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("is_stale", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("missed_heartbeats", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("health_order", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("agent_id", name=op.f("pk_replica_agents")),
    )
    op.create_index("ix_replica_agents_organization", "replica_agents", ["organization_id", "status"])
    op.create_table(
        "replica_sandboxes",
        sa.Column("sandbox_id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("started_at", _TIME, nullable=True),
        sa.Column("ended_at", _TIME, nullable=True),
        sa.Column("end_reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("sandbox_id", name=op.f("pk_replica_sandboxes")),
    )
    op.create_index(
        "ix_replica_sandboxes_open",
        "replica_sandboxes",
        ["organization_id"],
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "monitor_anomalies",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=True),
        sa.Column("subject_type", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Text(), nullable=False),
        sa.Column("metric_name", sa.Text(), nullable=False),
        sa.Column("anomaly_type", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("baseline_value", sa.Float(), nullable=False),
        sa.Column("observed_value", sa.Float(), nullable=False),
        sa.Column("deviation_percent", sa.Float(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("labels", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("detected_at", _TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("acknowledged_at", _TIME, nullable=True),
        sa.Column("acknowledged_by", sa.Text(), nullable=True),
        sa.Column("resolved_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_monitor_anomalies")),
    )
    op.create_index("ix_monitor_anomalies_detected", "monitor_anomalies", ["organization_id", "detected_at"])
    op.create_index(
        "uq_monitor_anomalies_open",
        "monitor_anomalies",
        ["subject_type", "subject_id", "metric_name"],
        unique=True,
        postgresql_where=_OPEN,
    )
    rules = op.create_table(
        "alert_rules",
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("metric_name", sa.Text(), nullable=False),
        sa.Column("condition", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("routing", postgresql.ARRAY(sa.TEXT()), nullable=False),
        sa.Column("is_enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.PrimaryKeyConstraint("rule_id", name=op.f("pk_alert_rules")),
    )
    op.create_index("ix_alert_rules_metric", "alert_rules", ["metric_name"])
    op.bulk_insert(
        rules,
        [
            {
                "rule_id": rule_id,
                "name": rule_id,
                "metric_name": metric,
                "condition": condition,
                "severity": severity,
                "routing": routing,
            }
            for rule_id, metric, condition, severity, routing in _RULES
        ],
    )
    op.create_table(
        "alerts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=True),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("metric_name", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("current_value", sa.Float(), nullable=False),
        sa.Column("threshold", sa.Float(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("labels", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("subject_type", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("triggered_at", _TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("acknowledged_at", _TIME, nullable=True),
        sa.Column("acknowledged_by", sa.Text(), nullable=True),
        sa.Column("resolved_at", _TIME, nullable=True),
        sa.Column("resolved_by", sa.Text(), nullable=True),
        sa.Column("resolution_note", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
    )
    op.create_index(
        "uq_alerts_open",
        "alerts",
        ["organization_id", "rule_id", "fingerprint"],
        unique=True,
        postgresql_where=_OPEN,
    )
    op.create_index("ix_alerts_open", "alerts", ["organization_id", "triggered_at"], postgresql_where=_OPEN)
    op.create_index("ix_alerts_subject", "alerts", ["subject_type", "subject_id"], postgresql_where=_OPEN)


def downgrade() -> None:
    for table in (
        "alerts",
        "alert_rules",
        "monitor_anomalies",
        "replica_sandboxes",
        "replica_agents",
        "replica_tickets",
        "replica_tasks",
    ):
        op.drop_table(table)
