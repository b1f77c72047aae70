"""Note the phase of a cost.

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
    """Costs of before have none, and the release before notes none."""
    op.add_column("cost_records", sa.Column("phase_id", sa.Text(), nullable=True))


def downgrade() -> None:
    raise RuntimeError("the code before works with this schema, too: there is nothing to take back")
