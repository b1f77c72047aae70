"""Keep with each plan the sandbox time of the current month.

Revision: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "replica_plans", sa.Column("sandbox_ms_used", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    )
    op.add_column("replica_plans", sa.Column("period_ends_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    raise RuntimeError("the code before works with this schema, too: there is nothing to take back")
