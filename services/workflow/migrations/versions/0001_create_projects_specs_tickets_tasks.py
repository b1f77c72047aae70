"""Create projects, tickets, tasks, executions, merges, specs, results.

Revision: 0001
Revises: None
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from servicekit.db.migrations import create_kit_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Counts follow tickets by insert-only deltas: two writers of one project never wait for one another.
_COUNT_FUNCTION = """
CREATE FUNCTION count_tickets() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO ticket_count_deltas (organization_id, project_id, phase_id, status, priority, tickets)
        SELECT organization_id, project_id, phase_id, status, priority, count(*)
        FROM added WHERE NOT hidden GROUP BY organization_id, project_id, phase_id, status, priority;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO ticket_count_deltas (organization_id, project_id, phase_id, status, priority, tickets)
        SELECT organization_id, project_id, phase_id, status, priority, -count(*)
        FROM removed WHERE NOT hidden GROUP BY organization_id, project_id, phase_id, status, priority;
    ELSE
        INSERT INTO ticket_count_deltas (organization_id, project_id, phase_id, status, priority, tickets)
        SELECT organization_id, project_id, phase_id, status, priority, sum(change)
        FROM (
            SELECT organization_id, project_id, phase_id, status, priority, 1 AS change FROM added WHERE NOT hidden
            UNION ALL
            SELECT organization_id, project_id, phase_id, status, priority, -1 FROM removed WHERE NOT hidden
        ) changes
        GROUP BY organization_id, project_id, phase_id, status, priority HAVING sum(change) <> 0;
    END IF;
    RETURN NULL;
END $$
"""
_COUNT_TRIGGERS = (
    "CREATE TRIGGER count_added AFTER INSERT ON tickets REFERENCING NEW TABLE AS added"
    " FOR EACH STATEMENT EXECUTE FUNCTION count_tickets()",
    "CREATE TRIGGER count_changed AFTER UPDATE ON tickets REFERENCING OLD TABLE AS removed NEW TABLE AS added"
    " FOR EACH STATEMENT EXECUTE FUNCTION count_tickets()",
    "CREATE TRIGGER count_removed AFTER DELETE ON tickets REFERENCING OLD TABLE AS removed"
    " FOR EACH STATEMENT EXECUTE FUNCTION count_tickets()",
)
# A task is updated several times in its life: room in the page keeps the row there, and vacuum by count keeps the
# index of claimable tasks short.
_TASK_STORAGE = "fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000"


def upgrade() -> None:
    create_kit_tables(op)
    op.create_table(
        "executions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("spec_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="running", nullable=False),
        sa.Column("reservation_id", sa.Text(), nullable=False),
        sa.Column("budget_micro_usd", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("target_branch", sa.Text(), nullable=False),
        sa.Column("started_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("tasks_completed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("tasks_failed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("tasks_cancelled", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column(
            "started_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('running', 'paused', 'completed', 'failed', 'cancelled')", name="ck_executions_state"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_executions"),
    )
    op.create_index(
        "ix_executions_open",
        "executions",
        ["id"],
        unique=False,
        postgresql_where=sa.text("state IN ('running', 'paused')"),
    )
    op.create_index("ix_executions_spec_id_started_at", "executions", ["spec_id", "started_at"], unique=False)
    op.create_index(
        "uq_executions_open",
        "executions",
        ["spec_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('running', 'paused')"),
    )
    op.create_table(
        "merges",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("spec_id", sa.Text(), nullable=False),
        sa.Column("target_branch", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="intent", nullable=False),
        sa.Column("items", postgresql.JSONB(), nullable=False),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('intent', 'started', 'finished', 'failed')", name="ck_merges_state"),
        sa.PrimaryKeyConstraint("id", name="pk_merges"),
    )
    op.create_index(
        "ix_merges_due", "merges", ["due_at"], unique=False, postgresql_where=sa.text("state IN ('intent', 'started')")
    )
    op.create_index(
        "uq_merges_open", "merges", ["spec_id"], unique=True, postgresql_where=sa.text("state IN ('intent', 'started')")
    )
    op.create_table(
        "projects",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("github_owner", sa.Text(), nullable=True),
        sa.Column("github_repo", sa.Text(), nullable=True),
        sa.Column("github_connected", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("default_phase_id", sa.Text(), server_default="PHASE_BACKLOG", nullable=False),
        sa.Column("status", sa.Text(), server_default="active", nullable=False),
        sa.Column("autonomous_execution_enabled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("settings", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("max_concurrent_tasks", sa.Integer(), nullable=True),
        sa.Column("repository_url", sa.Text(), nullable=True),
        sa.Column("default_branch", sa.Text(), nullable=True),
        sa.Column("repository_state", sa.Text(), server_default="none", nullable=False),
        sa.Column("repository_error", sa.Text(), nullable=True),
        sa.Column("head_sha", sa.Text(), nullable=True),
        sa.Column("bind_attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("bind_after", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "repository_state IN ('none', 'binding', 'mirroring', 'ready', 'failed')",
            name="ck_projects_repository_state",
        ),
        sa.CheckConstraint("status IN ('active', 'paused', 'archived', 'completed')", name="ck_projects_status"),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
        sa.UniqueConstraint("organization_id", "name", name="uq_projects_organization_id_name"),
    )
    op.create_index(
        "ix_projects_organization_id_created_at_id", "projects", ["organization_id", "created_at", "id"], unique=False
    )
    op.create_index(
        "ix_projects_to_bind",
        "projects",
        ["bind_after"],
        unique=False,
        postgresql_where=sa.text("repository_state IN ('binding', 'mirroring')"),
    )
    op.create_table(
        "queue_limits",
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("agents_limit", sa.Integer(), nullable=False),
        sa.Column(
            "refreshed_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("organization_id", name="pk_queue_limits"),
    )
    op.create_table(
        "ticket_count_deltas",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("phase_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("tickets", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_ticket_count_deltas"),
    )
    op.create_index("ix_ticket_count_deltas_project_id", "ticket_count_deltas", ["project_id"], unique=False)
    op.create_table(
        "ticket_counts",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("phase_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("tickets", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "phase_id", "status", "priority", name="pk_ticket_counts"),
    )
    op.create_index("ix_ticket_counts_organization_id", "ticket_counts", ["organization_id"], unique=False)
    op.create_table(
        "specs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), server_default="draft", nullable=False),
        sa.Column("generation_status", sa.Text(), server_default="none", nullable=False),
        sa.Column("execution_status", sa.Text(), server_default="none", nullable=False),
        sa.Column("archived", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("phase", sa.Text(), server_default="Requirements", nullable=False),
        sa.Column("current_phase", sa.Text(), server_default="explore", nullable=False),
        sa.Column("progress", sa.Float(), server_default=sa.text("0"), nullable=False),
        sa.Column("test_coverage", sa.Float(), server_default=sa.text("0"), nullable=False),
        sa.Column("engine", sa.Text(), nullable=True),
        sa.Column("plan", sa.Text(), nullable=True),
        sa.Column("budget_micro_usd", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("design", postgresql.JSONB(), nullable=True),
        sa.Column("requirements_approved", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("requirements_approved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("design_approved", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("design_approved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("phase_data", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("phase_attempts", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("spec_context", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("last_checkpoint_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("target_branch", sa.Text(), nullable=False),
        sa.Column("branch_name", sa.Text(), nullable=True),
        sa.Column("pull_request_url", sa.Text(), nullable=True),
        sa.Column("pull_request_number", sa.Integer(), nullable=True),
        sa.Column("current_execution_id", sa.Text(), nullable=True),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "execution_status IN ('none', 'executing', 'paused', 'completed', 'failed', 'cancelled')",
            name="ck_specs_execution_status",
        ),
        sa.CheckConstraint(
            "generation_status IN ('none', 'generating', 'generated', 'failed')", name="ck_specs_generation_status"
        ),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_specs_project_id_projects"),
        sa.PrimaryKeyConstraint("id", name="pk_specs"),
        sa.UniqueConstraint("project_id", "target_branch", name="uq_specs_project_id_target_branch"),
    )
    op.create_index("ix_specs_project_id_created_at_id", "specs", ["project_id", "created_at", "id"], unique=False)
    op.create_table(
        "tickets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("spec_id", sa.Text(), nullable=True),
        sa.Column("requirement_id", sa.Text(), nullable=True),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("phase_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("previous_phase_id", sa.Text(), nullable=True),
        sa.Column("is_blocked", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("blocked_reason", sa.Text(), nullable=True),
        sa.Column("blocked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("context", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("context_summary", sa.Text(), nullable=True),
        sa.Column("approval_status", sa.Text(), server_default="approved", nullable=False),
        sa.Column("approval_deadline_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("requested_by_agent_id", sa.Text(), nullable=True),
        sa.Column("rejection_reason", sa.Text(), nullable=True),
        sa.Column("content_hash", sa.Text(), nullable=True),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("hidden", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "status_entered_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "approval_status IN ('approved', 'pending_review', 'rejected', 'timed_out')",
            name="ck_tickets_approval_status",
        ),
        sa.CheckConstraint("priority IN ('CRITICAL', 'HIGH', 'MEDIUM', 'LOW')", name="ck_tickets_priority"),
        sa.CheckConstraint(
            "status IN ('backlog', 'analyzing', 'building', 'building-done', 'testing', 'done')",
            name="ck_tickets_status",
        ),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_tickets_project_id_projects"),
        sa.PrimaryKeyConstraint("id", name="pk_tickets"),
    )
    op.create_index(
        "ix_tickets_approval_deadline_at",
        "tickets",
        ["approval_deadline_at"],
        unique=False,
        postgresql_where=sa.text("approval_status = 'pending_review'"),
    )
    op.create_index(
        "ix_tickets_organization_id_created_at_id",
        "tickets",
        ["organization_id", "created_at", "id"],
        unique=False,
        postgresql_where=sa.text("NOT hidden"),
    )
    op.create_index(
        "ix_tickets_pending_review",
        "tickets",
        ["organization_id"],
        unique=False,
        postgresql_where=sa.text("approval_status = 'pending_review'"),
    )
    op.create_index("ix_tickets_project_id_content_hash", "tickets", ["project_id", "content_hash"], unique=False)
    op.create_index(
        "ix_tickets_project_id_created_at_id",
        "tickets",
        ["project_id", "created_at", "id"],
        unique=False,
        postgresql_where=sa.text("NOT hidden"),
    )
    op.create_index(
        "ix_tickets_project_id_phase_id_created_at_id",
        "tickets",
        ["project_id", "phase_id", "created_at", "id"],
        unique=False,
        postgresql_where=sa.text("NOT hidden"),
    )
    op.create_index("ix_tickets_spec_id", "tickets", ["spec_id"], unique=False)
    op.create_table(
        "phase_gate_artifacts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("ticket_id", sa.Text(), nullable=False),
        sa.Column("phase_id", sa.Text(), nullable=False),
        sa.Column("artifact_type", sa.Text(), nullable=False),
        sa.Column("artifact_path", sa.Text(), nullable=True),
        sa.Column("artifact_content", postgresql.JSONB(), nullable=True),
        sa.Column(
            "collected_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("collected_by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["ticket_id"], ["tickets.id"], name="fk_phase_gate_artifacts_ticket_id_tickets", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_phase_gate_artifacts"),
        sa.UniqueConstraint(
            "ticket_id",
            "phase_id",
            "artifact_type",
            "artifact_path",
            name="uq_phase_gate_artifacts_one",
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_table(
        "phase_gate_results",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("ticket_id", sa.Text(), nullable=False),
        sa.Column("phase_id", sa.Text(), nullable=False),
        sa.Column("gate_status", sa.Text(), nullable=False),
        sa.Column("blocking_reasons", postgresql.JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False),
        sa.Column(
            "validated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("validated_by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["ticket_id"], ["tickets.id"], name="fk_phase_gate_results_ticket_id_tickets", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_phase_gate_results"),
    )
    op.create_index(
        "ix_phase_gate_results_ticket_id_phase_id", "phase_gate_results", ["ticket_id", "phase_id"], unique=False
    )
    op.create_table(
        "phase_history",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("ticket_id", sa.Text(), nullable=False),
        sa.Column("from_phase", sa.Text(), nullable=False),
        sa.Column("to_phase", sa.Text(), nullable=False),
        sa.Column("from_status", sa.Text(), nullable=False),
        sa.Column("to_status", sa.Text(), nullable=False),
        sa.Column("transition_reason", sa.Text(), nullable=True),
        sa.Column("transitioned_by", sa.Text(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["ticket_id"], ["tickets.id"], name="fk_phase_history_ticket_id_tickets", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_phase_history"),
    )
    op.create_index("ix_phase_history_ticket_id_created_at", "phase_history", ["ticket_id", "created_at"], unique=False)
    op.create_table(
        "spec_requirements",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("spec_id", sa.Text(), nullable=False),
        sa.Column("local_id", sa.Text(), nullable=True),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("condition", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("linked_design", sa.Text(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["spec_id"], ["specs.id"], name="fk_spec_requirements_spec_id_specs", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_spec_requirements"),
    )
    op.create_index("ix_spec_requirements_spec_id_position", "spec_requirements", ["spec_id", "position"], unique=False)
    op.create_table(
        "spec_tasks",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("spec_id", sa.Text(), nullable=False),
        sa.Column("local_id", sa.Text(), nullable=True),
        sa.Column("task_id", sa.Text(), nullable=True),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("phase", sa.Text(), server_default="Implementation", nullable=False),
        sa.Column("priority", sa.Text(), server_default="medium", nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("assigned_agent", sa.Text(), nullable=True),
        sa.Column("dependencies", postgresql.JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False),
        sa.Column("estimated_hours", sa.Float(), nullable=True),
        sa.Column("actual_hours", sa.Float(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(["spec_id"], ["specs.id"], name="fk_spec_tasks_spec_id_specs", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_spec_tasks"),
        sa.UniqueConstraint("spec_id", "local_id", name="uq_spec_tasks_spec_id_local_id"),
    )
    op.create_index("ix_spec_tasks_spec_id_position", "spec_tasks", ["spec_id", "position"], unique=False)
    op.create_table(
        "spec_versions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("spec_id", sa.Text(), nullable=False),
        sa.Column("version_number", sa.BigInteger(), nullable=False),
        sa.Column("change_type", sa.Text(), nullable=False),
        sa.Column("change_summary", sa.Text(), nullable=False),
        sa.Column("change_details", postgresql.JSONB(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=True),
        sa.Column("snapshot", postgresql.JSONB(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(["spec_id"], ["specs.id"], name="fk_spec_versions_spec_id_specs", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_spec_versions"),
        sa.UniqueConstraint("spec_id", "version_number", name="uq_spec_versions_spec_id_version_number"),
    )
    op.create_table(
        "tasks",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("ticket_id", sa.Text(), nullable=False),
        sa.Column("spec_id", sa.Text(), nullable=True),
        sa.Column("spec_task_id", sa.Text(), nullable=True),
        sa.Column("execution_id", sa.Text(), nullable=True),
        sa.Column("target_branch", sa.Text(), nullable=True),
        sa.Column("phase_id", sa.Text(), nullable=False),
        sa.Column("task_type", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("score", sa.Float(), server_default=sa.text("0"), nullable=False),
        sa.Column("rescore_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("holds", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("unmet_dependencies", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("required_capabilities", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("owned_files", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("execution_config", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("context", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("sandbox_id", sa.Text(), nullable=True),
        sa.Column("assigned_agent_id", sa.Text(), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("leases_lost", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("retry_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("max_retries", sa.Integer(), server_default=sa.text("3"), nullable=False),
        sa.Column("timeout_seconds", sa.Integer(), nullable=True),
        sa.Column("timeout_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("result", postgresql.JSONB(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("end_reason", sa.Text(), nullable=True),
        sa.Column("branch", sa.Text(), nullable=True),
        sa.Column("head_sha", sa.Text(), nullable=True),
        sa.Column("merge_state", sa.Text(), server_default="none", nullable=False),
        sa.Column("merge_id", sa.Text(), nullable=True),
        sa.Column("merge_tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("resolves_task_id", sa.Text(), nullable=True),
        sa.Column("resolution_task_id", sa.Text(), nullable=True),
        sa.Column("parent_task_id", sa.Text(), nullable=True),
        sa.Column("conversation_id", sa.Text(), nullable=True),
        sa.Column("persistence_dir", sa.Text(), nullable=True),
        sa.Column("hidden", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "merge_state IN ('none', 'pending', 'merged', 'conflicted', 'failed')", name="ck_tasks_merge_state"
        ),
        sa.CheckConstraint("priority IN ('CRITICAL', 'HIGH', 'MEDIUM', 'LOW')", name="ck_tasks_priority"),
        sa.CheckConstraint(
            "status IN ('pending', 'claiming', 'assigned', 'running',"
            " 'pending_validation', 'validating', 'needs_revision', 'completed', 'failed', 'cancelled')",
            name="ck_tasks_status",
        ),
        sa.CheckConstraint("unmet_dependencies >= 0", name="ck_tasks_unmet_dependencies"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_tasks_project_id_projects"),
        sa.ForeignKeyConstraint(["ticket_id"], ["tickets.id"], name="fk_tasks_ticket_id_tickets", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_tasks"),
    )
    op.create_index(
        "ix_tasks_active",
        "tasks",
        ["organization_id", "project_id"],
        unique=False,
        postgresql_where=sa.text("status IN ('claiming', 'assigned', 'running', 'validating')"),
    )
    op.create_index(
        "ix_tasks_backoff",
        "tasks",
        ["not_before"],
        unique=False,
        postgresql_where=sa.text("status = 'pending' AND not_before IS NOT NULL"),
    )
    op.create_index("ix_tasks_execution_id_status", "tasks", ["execution_id", "status"], unique=False)
    op.create_index(
        "ix_tasks_lease",
        "tasks",
        ["lease_expires_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('assigned', 'running')"),
    )
    op.create_index(
        "ix_tasks_merge_id", "tasks", ["merge_id"], unique=False, postgresql_where=sa.text("merge_id IS NOT NULL")
    )
    op.create_index(
        "ix_tasks_organization_id_created_at_id", "tasks", ["organization_id", "created_at", "id"], unique=False
    )
    op.create_index(
        "ix_tasks_organization_id_status_created_at_id",
        "tasks",
        ["organization_id", "status", "created_at", "id"],
        unique=False,
    )
    op.create_index("ix_tasks_project_id_created_at_id", "tasks", ["project_id", "created_at", "id"], unique=False)
    op.create_index(
        "ix_tasks_ready",
        "tasks",
        ["organization_id", "project_id", sa.literal_column("score DESC"), "id"],
        unique=False,
        postgresql_where=sa.text("status = 'pending' AND holds = 0 AND unmet_dependencies = 0"),
    )
    op.create_index(
        "ix_tasks_released",
        "tasks",
        ["updated_at"],
        unique=False,
        postgresql_where=sa.text("status = 'completed' AND merge_state IN ('none', 'merged')"),
    )
    op.create_index(
        "ix_tasks_rescore",
        "tasks",
        ["rescore_at"],
        unique=False,
        postgresql_where=sa.text("status = 'pending' AND rescore_at IS NOT NULL"),
    )
    op.create_index(
        "ix_tasks_spec_id_merge_state",
        "tasks",
        ["spec_id", "merge_state"],
        unique=False,
        postgresql_where=sa.text("spec_id IS NOT NULL"),
    )
    op.create_index(
        "ix_tasks_spec_task_id",
        "tasks",
        ["spec_task_id"],
        unique=False,
        postgresql_where=sa.text("spec_task_id IS NOT NULL"),
    )
    op.create_index("ix_tasks_ticket_id_created_at_id", "tasks", ["ticket_id", "created_at", "id"], unique=False)
    op.create_index(
        "ix_tasks_timeout", "tasks", ["timeout_at"], unique=False, postgresql_where=sa.text("status = 'running'")
    )
    op.create_table(
        "ticket_dependencies",
        sa.Column("ticket_id", sa.Text(), nullable=False),
        sa.Column("blocked_by_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["blocked_by_id"], ["tickets.id"], name="fk_ticket_dependencies_blocked_by_id_tickets", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["ticket_id"], ["tickets.id"], name="fk_ticket_dependencies_ticket_id_tickets", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("ticket_id", "blocked_by_id", name="pk_ticket_dependencies"),
    )
    op.create_index("ix_ticket_dependencies_blocked_by_id", "ticket_dependencies", ["blocked_by_id"], unique=False)
    op.create_table(
        "workflow_results",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("workflow_id", sa.Text(), nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("markdown_content", sa.Text(), nullable=False),
        sa.Column("markdown_file_path", sa.Text(), nullable=False),
        sa.Column("explanation", sa.Text(), nullable=True),
        sa.Column("evidence", postgresql.JSONB(), nullable=True),
        sa.Column("status", sa.Text(), server_default="pending_validation", nullable=False),
        sa.Column("validated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("validated_by", sa.Text(), nullable=True),
        sa.Column("validation_feedback", sa.Text(), nullable=True),
        sa.Column("validation_evidence", postgresql.JSONB(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "status IN ('pending_validation', 'validated', 'rejected')", name="ck_workflow_results_status"
        ),
        sa.ForeignKeyConstraint(
            ["workflow_id"], ["tickets.id"], name="fk_workflow_results_workflow_id_tickets", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_workflow_results"),
    )
    op.create_index(
        "ix_workflow_results_workflow_id_created_at_id",
        "workflow_results",
        ["workflow_id", "created_at", "id"],
        unique=False,
    )
    op.create_table(
        "agent_results",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("markdown_content", sa.Text(), nullable=False),
        sa.Column("markdown_file_path", sa.Text(), nullable=False),
        sa.Column("result_type", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("verification_status", sa.Text(), server_default="unverified", nullable=False),
        sa.Column("verified_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("verified_by_validation_id", sa.Text(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "verification_status IN ('unverified', 'verified', 'disputed')", name="ck_agent_results_verification_status"
        ),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_agent_results_task_id_tasks", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_agent_results"),
    )
    op.create_index(
        "ix_agent_results_task_id_created_at_id", "agent_results", ["task_id", "created_at", "id"], unique=False
    )
    op.create_table(
        "spec_acceptance_criteria",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("spec_id", sa.Text(), nullable=False),
        sa.Column("requirement_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("completed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["requirement_id"],
            ["spec_requirements.id"],
            name="fk_spec_acceptance_criteria_requirement_id_spec_requirements",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["spec_id"], ["specs.id"], name="fk_spec_acceptance_criteria_spec_id_specs", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_spec_acceptance_criteria"),
    )
    op.create_index(
        "ix_spec_acceptance_criteria_requirement_id_position",
        "spec_acceptance_criteria",
        ["requirement_id", "position"],
        unique=False,
    )
    op.create_index("ix_spec_acceptance_criteria_spec_id", "spec_acceptance_criteria", ["spec_id"], unique=False)
    op.create_table(
        "task_dependencies",
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("depends_on_id", sa.Text(), nullable=False),
        sa.Column("satisfied", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.ForeignKeyConstraint(
            ["depends_on_id"], ["tasks.id"], name="fk_task_dependencies_depends_on_id_tasks", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["task_id"], ["tasks.id"], name="fk_task_dependencies_task_id_tasks", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("task_id", "depends_on_id", name="pk_task_dependencies"),
    )
    op.create_index("ix_task_dependencies_depends_on_id", "task_dependencies", ["depends_on_id"], unique=False)
    op.create_index(
        "ix_task_dependencies_open",
        "task_dependencies",
        ["depends_on_id"],
        unique=False,
        postgresql_where=sa.text("NOT satisfied"),
    )
    op.execute(_COUNT_FUNCTION)
    for trigger in _COUNT_TRIGGERS:
        op.execute(trigger)
    op.execute(f"ALTER TABLE tasks SET ({_TASK_STORAGE})")


def downgrade() -> None:
    raise RuntimeError("the first revision is not taken back; restore a backup instead")
