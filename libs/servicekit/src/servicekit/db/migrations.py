"""What a service's first revision creates for the kit; frozen, so that old revisions keep their meaning."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations
from sqlalchemy.dialects.postgresql import ARRAY

# Rows are updated once (published) and deleted after days: vacuum by count, for a share of a big table comes too late.
_OUTBOX_STORAGE = "fillfactor = 85, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000"
_INBOX_STORAGE = "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000"


def create_kit_tables(op: Operations, *, identity: bool = False) -> None:
    """Create outbox, inbox, idempotency_keys, replica_resources and the replicas of identity's facts.

    `identity` leaves the last ones out: identity owns the facts that the others replicate.
    """
    timestamptz = sa.DateTime(timezone=True)
    op.create_table(
        "outbox",
        sa.Column("seq", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("event_id", sa.Uuid, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("aggregate_type", sa.Text, nullable=False),
        sa.Column("aggregate_id", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("organization_id", sa.Text),
        sa.Column("correlation_id", sa.Text),
        sa.Column("causation_id", sa.Text),
        sa.Column("traceparent", sa.Text),
        sa.Column("occurred_at", timestamptz, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("published_at", timestamptz),
        sa.PrimaryKeyConstraint("seq", name="pk_outbox"),
    )
    op.create_index("ix_outbox_pending", "outbox", ["seq"], postgresql_where=sa.text("published_at IS NULL"))
    op.execute(f"ALTER TABLE outbox SET ({_OUTBOX_STORAGE})")
    op.create_table(
        "inbox",
        sa.Column("event_id", sa.Uuid, nullable=False),
        sa.Column("consumer", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("event_id", "consumer", name="pk_inbox"),
    )
    op.execute(f"ALTER TABLE inbox SET ({_INBOX_STORAGE})")
    op.create_table(
        "idempotency_keys",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("claimed_at", timestamptz, nullable=False, server_default=sa.text("now()")),
        sa.Column("status", sa.SmallInteger),
        sa.Column("body", sa.LargeBinary),
        sa.PrimaryKeyConstraint("scope", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_claimed_at", "idempotency_keys", ["claimed_at"])
    op.create_table(
        "replica_resources",
        sa.Column("resource_type", sa.Text, nullable=False),
        sa.Column("resource_id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("parent_id", sa.Text),
        sa.PrimaryKeyConstraint("resource_type", "resource_id", name="pk_replica_resources"),
    )
    if not identity:
        _create_identity_replicas(op)


def create_stream_readers(op: Operations) -> None:
    """Create the note of how far each durable has handled what this service said."""
    timestamptz = sa.DateTime(timezone=True)
    op.create_table(
        "stream_readers",
        sa.Column("durable", sa.Text, nullable=False),
        sa.Column("stream_created", timestamptz, nullable=False),
        sa.Column("handled_seq", sa.BigInteger, nullable=False),
        sa.Column("handled_at", timestamptz, nullable=False),
        sa.Column("lost_from", timestamptz),
        sa.Column("lost_to", timestamptz),
        sa.Column("sent_seq", sa.BigInteger),
        sa.PrimaryKeyConstraint("durable", name="pk_stream_readers"),
    )


def note_when_events_are_handled(op: Operations) -> None:
    """Add the time to `inbox`; what was handled before counts as handled now."""
    op.add_column(
        "inbox", sa.Column("handled_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()"))
    )


def _create_identity_replicas(op: Operations) -> None:
    timestamptz = sa.DateTime(timezone=True)
    op.create_table(
        "replica_memberships",
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("permissions", ARRAY(sa.Text), nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "organization_id", name="pk_replica_memberships"),
    )
    op.create_table(
        "replica_revocations",
        sa.Column("principal_type", sa.Text, nullable=False),
        sa.Column("principal_id", sa.Text, nullable=False),
        sa.Column("not_before", timestamptz, nullable=False),
        sa.Column("updated_at", timestamptz, nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.PrimaryKeyConstraint("principal_type", "principal_id", name="pk_replica_revocations"),
    )
    op.create_index("ix_replica_revocations_updated_at", "replica_revocations", ["updated_at"])
