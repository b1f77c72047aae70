"""Note what was left of the allowance when the month ended, so that usage told late is taken from its own month.

Revision: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The release before notes nothing: usage told late in the month of the change is taken from that month."""
    op.add_column(
        "billing_accounts", sa.Column("lapsed_micro_usd", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    )


def downgrade() -> None:
    raise RuntimeError("the code before works with this schema, too: there is nothing to take back")
