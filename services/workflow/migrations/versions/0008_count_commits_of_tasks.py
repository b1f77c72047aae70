"""Count the commits and the lines of each task, as vcs links them.

Revision: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "task_commits",
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("commits", sa.Integer(), nullable=False),
        sa.Column("lines_added", sa.BigInteger(), nullable=False),
        sa.Column("lines_removed", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", name="pk_task_commits"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_task_commits_task_id_tasks", ondelete="CASCADE"),
    )


def downgrade() -> None:
    op.drop_table("task_commits")
