"""Version prices and plans; note when a reservation's execution was asked after.

Revision: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "prices",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("prompt", sa.BigInteger(), nullable=False),
        sa.Column("completion", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("provider", "model", "version", name=op.f("pk_prices")),
    )
    op.add_column("plan_tiers", sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False))
    op.add_column(
        "reservations",
        sa.Column("checked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    )
    # Limits are read from the plan from now on; the release before goes on writing its copies while it is replaced.
    op.alter_column("billing_accounts", "workflows_limit", server_default=sa.text("5"))
    op.alter_column("billing_accounts", "agents_limit", server_default=sa.text("1"))
    op.alter_column("billing_accounts", "included_micro_usd", server_default=sa.text("5000000"))
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_reservations_checked_at",
            "reservations",
            ["checked_at"],
            unique=False,
            postgresql_where=sa.text("state = 'confirmed'"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    raise RuntimeError("the code before works with this schema, too: there is nothing to take back")
