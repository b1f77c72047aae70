"""Note the phase of a sandbox's task, so that usage is told with it.

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
    """The release before leaves it empty: what its sandboxes use belongs to no phase."""
    for table in ("sandboxes", "sandbox_streams"):
        op.add_column(table, sa.Column("phase_id", sa.Text, nullable=False, server_default=sa.text("''")))


def downgrade() -> None:
    raise RuntimeError("the code before works with this schema, too: there is nothing to take back")
