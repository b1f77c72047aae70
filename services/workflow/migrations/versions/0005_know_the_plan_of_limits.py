"""Know by which plan an organization's limits were told, so that another plan is asked for at once.

Revision: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("queue_limits", sa.Column("tier", sa.Text(), nullable=True))
    op.add_column(
        "queue_limits", sa.Column("account_version", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    )


def downgrade() -> None:
    op.drop_column("queue_limits", "account_version")
    op.drop_column("queue_limits", "tier")
