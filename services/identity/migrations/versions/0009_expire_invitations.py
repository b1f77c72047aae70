"""Find API keys by organization and invitations whose time has passed.

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
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_api_keys_organization",
            "api_keys",
            ["organization_id", "id"],
            postgresql_where=sa.text("organization_id IS NOT NULL"),
            postgresql_concurrently=True,
        )
        op.create_index(
            "ix_invitations_expiring",
            "invitations",
            ["expires_at"],
            postgresql_where=sa.text("state = 'pending'"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    raise RuntimeError("the code before works with this schema, too: there is nothing to take back")
