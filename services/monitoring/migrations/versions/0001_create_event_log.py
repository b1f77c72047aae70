"""Create the event log.

Revision: 0001
Revises: None
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from servicekit.db.migrations import create_kit_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_kit_tables(op)
    op.create_table(
        "event_log_head",
        sa.Column("is_head", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("last_sequence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("is_head", name=op.f("pk_event_log_head")),
        sa.CheckConstraint("is_head", name=op.f("ck_event_log_head_one_row")),
        # The row changes with every batch: room for its versions keeps the updates off the index.
        postgresql_with={"fillfactor": 50},
    )
    op.execute("INSERT INTO event_log_head DEFAULT VALUES")
    # The days' tables come and go with the clock; in a schema of their own they are no part of the models.
    op.execute("CREATE SCHEMA event_days")
    op.execute(
        """
        CREATE TABLE event_log (
            last_sequence bigint NOT NULL,
            logged_at timestamptz NOT NULL,
            first_sequence bigint NOT NULL,
            event_id uuid NOT NULL,
            subject text NOT NULL,
            aggregate_type text NOT NULL,
            aggregate_id text NOT NULL,
            version bigint NOT NULL,
            organization_id text,
            correlation_id text,
            causation_id text,
            occurred_at timestamptz NOT NULL,
            size integer NOT NULL,
            payload bytea NOT NULL,
            CONSTRAINT pk_event_log PRIMARY KEY (last_sequence, logged_at)
        ) PARTITION BY RANGE (logged_at)
        """
    )
    op.create_index("ix_event_log_organization", "event_log", ["organization_id", "last_sequence"])
    # Rows of a day whose partition is not there yet; the job moves them when it makes that day.
    op.execute("CREATE TABLE event_days.event_log_rest PARTITION OF event_log DEFAULT")


def downgrade() -> None:
    op.execute("DROP TABLE event_log")
    op.execute("DROP SCHEMA event_days")
    op.drop_table("event_log_head")
