"""Mark the agents that somebody closed for tasks, so that a heartbeat does not open them again.

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
    """The release before neither reads nor writes the column."""
    op.add_column("agents", sa.Column("closed", sa.Boolean, nullable=False, server_default=sa.text("false")))


def downgrade() -> None:
    raise RuntimeError("the code before works with this schema, too: there is nothing to take back")
