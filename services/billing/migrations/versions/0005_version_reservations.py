"""Give reservations a version, so that the events of one that is taken again are newer than those of its end.

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
    """Events said 1 when held, 2 when confirmed and 3 at the end until now: what comes next is newer than each."""
    op.add_column("reservations", sa.Column("version", sa.BigInteger(), server_default=sa.text("3"), nullable=False))
    op.alter_column("reservations", "version", server_default=sa.text("1"))


def downgrade() -> None:
    raise RuntimeError("the code before works with this schema, too: there is nothing to take back")
