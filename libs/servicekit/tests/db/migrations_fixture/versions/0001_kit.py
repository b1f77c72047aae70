"""The kit's tables and one of the tests' own."""

import sqlalchemy as sa
from alembic import op

from servicekit.db.migrations import create_kit_tables, create_stream_readers, note_when_events_are_handled

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_kit_tables(op)
    create_stream_readers(op)
    note_when_events_are_handled(op)
    op.create_table(
        "items",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_items"),
    )
    op.create_table(
        "things",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False, server_default="1"),
        sa.PrimaryKeyConstraint("id", name="pk_things"),
        sa.UniqueConstraint("name", name="uq_things_name", deferrable=True, initially="DEFERRED"),
    )
