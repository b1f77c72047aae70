"""Create accounts, reservations, ledger, costs.

Revision: 0001
Revises: None
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from servicekit.db.migrations import create_kit_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_kit_tables(op)
    op.create_table(
        "cost_records",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("usage_id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=True),
        sa.Column("spec_id", sa.Text(), nullable=True),
        sa.Column("execution_id", sa.Text(), nullable=True),
        sa.Column("ticket_id", sa.Text(), nullable=True),
        sa.Column("task_id", sa.Text(), nullable=True),
        sa.Column("sandbox_id", sa.Text(), nullable=True),
        sa.Column("agent_id", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("sandbox_milliseconds", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("prompt_micro_usd", sa.BigInteger(), nullable=False),
        sa.Column("completion_micro_usd", sa.BigInteger(), nullable=False),
        sa.Column("total_micro_usd", sa.BigInteger(), nullable=False),
        sa.Column("listed", sa.Boolean(), nullable=False),
        sa.Column("price_version", sa.Integer(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cost_records")),
    )
    op.create_index("ix_cost_records_agent", "cost_records", ["agent_id", "recorded_at"], unique=False)
    op.create_index("ix_cost_records_execution", "cost_records", ["execution_id"], unique=False)
    op.create_index(
        "ix_cost_records_organization", "cost_records", ["organization_id", "recorded_at", "id"], unique=False
    )
    op.create_index("ix_cost_records_task", "cost_records", ["task_id"], unique=False)
    op.create_index("ix_cost_records_ticket", "cost_records", ["ticket_id"], unique=False)
    op.create_index("uq_cost_records_usage", "cost_records", ["usage_id"], unique=True)
    op.create_table(
        "ledger_entries",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("posting_id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("amount_micro_usd", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_entries")),
    )
    op.create_index("ix_ledger_entries_organization", "ledger_entries", ["organization_id", "account"], unique=False)
    op.create_index("ix_ledger_entries_posting", "ledger_entries", ["posting_id"], unique=False)
    op.create_table(
        "plan_tiers",
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("price_micro_usd", sa.BigInteger(), nullable=False),
        sa.Column("workflows_limit", sa.Integer(), nullable=False),
        sa.Column("agents_limit", sa.Integer(), nullable=False),
        sa.Column("storage_limit_gb", sa.Integer(), nullable=False),
        sa.Column("included_micro_usd", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tier", name=op.f("pk_plan_tiers")),
    )
    op.create_table(
        "reservations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("execution_id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("spec_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'held'"), nullable=False),
        sa.Column("reserved_micro_usd", sa.BigInteger(), nullable=False),
        sa.Column("spent_micro_usd", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("overdrawn", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reservations")),
    )
    op.create_index(
        "ix_reservations_expires_at",
        "reservations",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("state = 'held'"),
    )
    op.create_index("ix_reservations_organization", "reservations", ["organization_id", "created_at"], unique=False)
    op.create_index("uq_reservations_execution", "reservations", ["execution_id"], unique=True)
    op.create_table(
        "billing_accounts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), server_default=sa.text("'free'"), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("billing_email", sa.Text(), nullable=True),
        sa.Column("workflows_limit", sa.Integer(), nullable=False),
        sa.Column("agents_limit", sa.Integer(), nullable=False),
        sa.Column("included_micro_usd", sa.BigInteger(), nullable=False),
        sa.Column("workflows_used", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("workflows_reserved", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("period_ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("available_micro_usd", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("reserved_micro_usd", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("spent_micro_usd", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("workflows_completed", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("auto_billing_enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("tax_exempt", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "workflows_reserved >= 0 AND reserved_micro_usd >= 0",
            name=op.f("ck_billing_accounts_reserved_not_negative"),
        ),
        sa.ForeignKeyConstraint(["tier"], ["plan_tiers.tier"], name=op.f("fk_billing_accounts_tier_plan_tiers")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_billing_accounts")),
    )
    op.create_index("uq_billing_accounts_organization", "billing_accounts", ["organization_id"], unique=True)


def downgrade() -> None:
    raise RuntimeError("the first revision has no way back: restore a backup instead")
