"""Keep the limits that organizations set for themselves, and the hours that they used.

Revision: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "replica_organizations",
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("max_concurrent_agents", sa.Integer(), nullable=True),
        sa.Column("max_agent_runtime_hours", sa.Float(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("organization_id", name="pk_replica_organizations"),
    )
    op.add_column(
        "queue_limits",
        sa.Column("sandbox_ms_used", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column("queue_limits", sa.Column("period_ends_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("queue_limits", "period_ends_at")
    op.drop_column("queue_limits", "sandbox_ms_used")
    op.drop_table("replica_organizations")
