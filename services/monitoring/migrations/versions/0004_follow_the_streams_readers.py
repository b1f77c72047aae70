"""Note how far each durable has handled the stream, and when each event of the inbox was told last.

Revision: 0004
Revises: 0003
"""

from __future__ import annotations

from alembic import op

from servicekit.db.migrations import create_stream_readers, note_when_events_are_handled

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_stream_readers(op)
    note_when_events_are_handled(op)


def downgrade() -> None:
    raise RuntimeError("the code before works with this schema, too: there is nothing to take back")
