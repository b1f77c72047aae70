"""Count starts of tasks that failed, with the reason of the last one.

Revision: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tasks", sa.Column("start_failures", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("tasks", sa.Column("start_error", sa.Text(), nullable=True))


def downgrade() -> None:
    raise RuntimeError("the code before works with this schema, too: there is nothing to take back")
