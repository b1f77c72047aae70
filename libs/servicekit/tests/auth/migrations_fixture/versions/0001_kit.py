"""The kit's tables alone."""

from alembic import op

from servicekit.db.migrations import create_kit_tables, create_stream_readers, note_when_events_are_handled

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_kit_tables(op)
    create_stream_readers(op)
    note_when_events_are_handled(op)
