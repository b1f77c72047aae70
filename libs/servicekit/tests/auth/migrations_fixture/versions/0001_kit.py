"""The kit's tables alone."""

from alembic import op

from servicekit.db.migrations import create_kit_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_kit_tables(op)
