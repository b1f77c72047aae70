"""Key transcripts by organization and session, so that a session goes on in another sandbox and tenants do not meet.

Revision: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The release before goes on writing `session_transcripts`, which stays until it is gone."""
    timestamptz = sa.DateTime(timezone=True)
    now = sa.text("now()")
    op.create_table(
        "transcripts",
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("sandbox_id", sa.Text, nullable=False),
        sa.Column("task_id", sa.Text, nullable=False),
        sa.Column("transcript_b64", sa.Text, nullable=False),
        sa.Column("session_metadata", JSONB, nullable=False),
        sa.Column("created_at", timestamptz, nullable=False, server_default=now),
        sa.Column("updated_at", timestamptz, nullable=False, server_default=now),
        sa.PrimaryKeyConstraint("organization_id", "session_id", name="pk_transcripts"),
    )
    op.create_index("ix_transcripts_updated_at", "transcripts", ["updated_at"])
    op.execute(
        "INSERT INTO transcripts (organization_id, session_id, sandbox_id, task_id, transcript_b64, session_metadata,"
        " created_at, updated_at) SELECT organization_id, session_id, sandbox_id, task_id, transcript_b64,"
        " session_metadata, created_at, updated_at FROM session_transcripts"
    )


def downgrade() -> None:
    raise RuntimeError("the code before works with this schema, too: there is nothing to take back")
