"""Queue merges by the branch that they are merged into: tickets of no spec have one, too.

Revision: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_tasks_to_merge",
            "tasks",
            ["project_id", "target_branch"],
            postgresql_where=sa.text("merge_state = 'pending' AND merge_id IS NULL AND status = 'completed'"),
            postgresql_concurrently=True,
            if_not_exists=True,
        )
        op.create_index(
            "uq_merges_open_target",
            "merges",
            ["project_id", "target_branch"],
            unique=True,
            postgresql_where=sa.text("state IN ('intent', 'started')"),
            postgresql_concurrently=True,
            if_not_exists=True,
        )
        # The release before inserts with any conflict as no merge, whichever index finds it.
        op.drop_index("uq_merges_open", table_name="merges", postgresql_concurrently=True, if_exists=True)


def downgrade() -> None:
    raise RuntimeError("the code before works with this schema, too: there is nothing to take back")
