"""Count how often in a row a task was given back.

Revision: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tasks", sa.Column("releases", sa.Integer(), server_default=sa.text("0"), nullable=False))


def downgrade() -> None:
    raise RuntimeError("the code before works with this schema, too: there is nothing to take back")
