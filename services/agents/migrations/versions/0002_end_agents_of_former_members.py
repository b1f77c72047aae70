"""Revoke tokens of agents as well; find agents by who registered them.

Revision: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The release before goes on writing sandboxes only, which is the default."""
    op.add_column(
        "revocations", sa.Column("principal_type", sa.Text, nullable=False, server_default=sa.text("'sandbox'"))
    )
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_agents_registered_by",
            "agents",
            ["registered_by"],
            postgresql_where=sa.text("status <> 'TERMINATED'"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    raise RuntimeError("the code before works with this schema, too: there is nothing to take back")
