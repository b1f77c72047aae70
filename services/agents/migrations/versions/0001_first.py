"""Agents, sandboxes, their streams, events, messages and revocations.

Revision: 0001
Revises: none
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from servicekit.db.migrations import create_kit_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create everything."""
    create_kit_tables(op)
    timestamptz = sa.DateTime(timezone=True)
    now, clock = sa.text("now()"), sa.text("clock_timestamp()")
    op.create_table(
        "agents",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("agent_name", sa.Text, nullable=False),
        sa.Column("agent_type", sa.Text, nullable=False),
        sa.Column("phase_id", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("capabilities", ARRAY(sa.Text), nullable=False),
        sa.Column("capacity", sa.Integer, nullable=False),
        sa.Column("health_status", sa.Text, nullable=False),
        sa.Column("tags", ARRAY(sa.Text), nullable=False),
        sa.Column("last_heartbeat", timestamptz),
        sa.Column("sequence_number", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("missed_heartbeats", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("current_task_id", sa.Text),
        sa.Column("health_metrics", JSONB),
        sa.Column("registered_by", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False, server_default=sa.text("1")),
        sa.Column("created_at", timestamptz, nullable=False, server_default=now),
        sa.Column("updated_at", timestamptz, nullable=False, server_default=now),
        sa.PrimaryKeyConstraint("id", name="pk_agents"),
    )
    # A heartbeat is one update of one row; room on the page keeps it a heap-only update.
    op.execute("ALTER TABLE agents SET (fillfactor = 70)")
    op.create_index("ix_agents_organization_id_created_at", "agents", ["organization_id", "created_at", "id"])
    op.create_index(
        "ix_agents_operational",
        "agents",
        ["last_heartbeat"],
        postgresql_where=sa.text("status IN ('SPAWNING', 'IDLE', 'RUNNING', 'DEGRADED')"),
    )
    op.create_table(
        "agent_status_transitions",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("from_status", sa.Text, nullable=False),
        sa.Column("to_status", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("triggered_by", sa.Text),
        sa.Column("task_id", sa.Text),
        sa.Column("transitioned_at", timestamptz, nullable=False, server_default=now),
        sa.PrimaryKeyConstraint("id", name="pk_agent_status_transitions"),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name="fk_agent_status_transitions_agent_id_agents", ondelete="CASCADE"
        ),
    )
    op.create_index(
        "ix_agent_status_transitions_agent_id_transitioned_at",
        "agent_status_transitions",
        ["agent_id", "transitioned_at"],
    )
    op.create_table(
        "sandbox_streams",
        sa.Column("sandbox_id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("task_id", sa.Text, nullable=False),
        sa.Column("ticket_id", sa.Text, nullable=False),
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("spec_id", sa.Text, nullable=False),
        sa.Column("execution_id", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("is_open", sa.Boolean, nullable=False, server_default=sa.text("true")),
        sa.Column("close_reason", sa.Text),
        sa.Column("opened_at", timestamptz, nullable=False, server_default=now),
        sa.Column("last_sequence", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("greatest_event_id", sa.Uuid),
        sa.Column("last_event_at", timestamptz),
        sa.Column("last_work_at", timestamptz),
        sa.Column("heartbeat_count", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("first_heartbeat_at", timestamptz),
        sa.Column("last_heartbeat_at", timestamptz),
        sa.PrimaryKeyConstraint("sandbox_id", name="pk_sandbox_streams"),
    )
    op.execute("ALTER TABLE sandbox_streams SET (fillfactor = 70)")
    # The days live in a schema of their own, so that the service's schema holds what the tables say and nothing else.
    op.execute("CREATE SCHEMA IF NOT EXISTS event_days")
    op.execute(
        """
        CREATE TABLE sandbox_events (
            sandbox_id text NOT NULL,
            sequence bigint NOT NULL,
            created_at timestamptz NOT NULL,
            event_id uuid NOT NULL,
            event_type text NOT NULL,
            event_data text NOT NULL,
            source text NOT NULL,
            CONSTRAINT pk_sandbox_events PRIMARY KEY (sandbox_id, sequence, created_at)
        ) PARTITION BY RANGE (created_at)
        """
    )
    op.create_index("ix_sandbox_events_event_id", "sandbox_events", ["event_id"])
    # Rows of a day whose partition is not there yet; the maintenance job moves them when it makes that day.
    op.execute("CREATE TABLE event_days.sandbox_events_rest PARTITION OF sandbox_events DEFAULT")
    op.create_table(
        "session_transcripts",
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("sandbox_id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("task_id", sa.Text, nullable=False),
        sa.Column("transcript_b64", sa.Text, nullable=False),
        sa.Column("session_metadata", JSONB, nullable=False),
        sa.Column("created_at", timestamptz, nullable=False, server_default=now),
        sa.Column("updated_at", timestamptz, nullable=False, server_default=now),
        sa.PrimaryKeyConstraint("session_id", name="pk_session_transcripts"),
    )
    op.create_table(
        "sandboxes",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("task_id", sa.Text, nullable=False),
        sa.Column("ticket_id", sa.Text, nullable=False),
        sa.Column("spec_id", sa.Text, nullable=False),
        sa.Column("execution_id", sa.Text, nullable=False),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("isolation", sa.Text, nullable=False),
        sa.Column("branch", sa.Text, nullable=False),
        sa.Column("base_sha", sa.Text, nullable=False),
        sa.Column("started_at", timestamptz, nullable=False, server_default=clock),
        sa.Column("last_heartbeat_at", timestamptz, nullable=False, server_default=clock),
        sa.Column("ended_at", timestamptz),
        sa.Column("end_reason", sa.Text),
        sa.Column("completion", JSONB),
        sa.Column("version", sa.BigInteger, nullable=False, server_default=sa.text("1")),
        sa.PrimaryKeyConstraint("id", name="pk_sandboxes"),
    )
    op.create_index("uq_sandboxes_task_id_attempt", "sandboxes", ["task_id", "attempt"], unique=True)
    op.create_index("ix_sandboxes_organization_id_started_at", "sandboxes", ["organization_id", "started_at"])
    running = sa.text("state = 'running'")
    op.create_index("ix_sandboxes_running", "sandboxes", ["last_heartbeat_at"], postgresql_where=running)
    op.create_index("ix_sandboxes_agent_running", "sandboxes", ["agent_id"], postgresql_where=running)
    op.create_table(
        "sandbox_messages",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("sandbox_id", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("message_type", sa.Text, nullable=False),
        sa.Column("sender_id", sa.Text, nullable=False),
        sa.Column("created_at", timestamptz, nullable=False, server_default=clock),
        sa.Column("delivered_at", timestamptz),
        sa.PrimaryKeyConstraint("id", name="pk_sandbox_messages"),
    )
    op.create_index(
        "ix_sandbox_messages_waiting",
        "sandbox_messages",
        ["sandbox_id", "position"],
        postgresql_where=sa.text("delivered_at IS NULL"),
    )
    op.create_table(
        "revocations",
        sa.Column("sandbox_id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("due_at", timestamptz, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.PrimaryKeyConstraint("sandbox_id", name="pk_revocations"),
    )
    op.create_index("ix_revocations_due_at", "revocations", ["due_at"])


def downgrade() -> None:
    """Going back is a restore: a first revision has nothing to go back to."""
    raise RuntimeError("restore a backup instead")
