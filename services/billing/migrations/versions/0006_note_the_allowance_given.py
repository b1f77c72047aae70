"""Note what allowance an account was given this month, so that it is neither given twice nor taken for credit.

Revision: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Null for accounts of before: they were given what their plan includes."""
    op.add_column("billing_accounts", sa.Column("allowance_micro_usd", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    raise RuntimeError("the code before works with this schema, too: there is nothing to take back")
