"""Count each account's sandbox time of the current month.

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
    """The release before counts nothing; what it records while it is replaced is missing from this month."""
    op.add_column(
        "billing_accounts", sa.Column("sandbox_ms_used", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    )
    op.execute(
        """
        UPDATE billing_accounts a SET sandbox_ms_used = used.ms
        FROM (
            SELECT organization_id, sum(sandbox_milliseconds) AS ms FROM cost_records
            WHERE recorded_at >= date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
            GROUP BY organization_id
        ) used
        WHERE used.organization_id = a.organization_id
        """
    )


def downgrade() -> None:
    raise RuntimeError("the code before works with this schema, too: there is nothing to take back")
