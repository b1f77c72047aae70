"""The kit's own tables, present in every service's database."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Identity, Index, LargeBinary, SmallInteger, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db.base import Base


class OutboxRow(Base):
    """An event that left its transaction; `published_at` is null until JetStream has acknowledged it."""

    __tablename__ = "outbox"
    __table_args__ = (Index("ix_outbox_pending", "seq", postgresql_where=text("published_at IS NULL")),)

    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    event_id: Mapped[str] = mapped_column(Uuid(as_uuid=False))
    subject: Mapped[str]
    aggregate_type: Mapped[str]
    aggregate_id: Mapped[str]
    version: Mapped[int] = mapped_column(BigInteger)
    organization_id: Mapped[str | None]
    correlation_id: Mapped[str | None]
    causation_id: Mapped[str | None]
    traceparent: Mapped[str | None]
    occurred_at: Mapped[datetime]
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    published_at: Mapped[datetime | None]


class InboxRow(Base):
    """An event that one consumer has handled; ids are UUIDv7, so the primary key is in time order."""

    __tablename__ = "inbox"

    event_id: Mapped[str] = mapped_column(Uuid(as_uuid=False), primary_key=True)
    consumer: Mapped[str] = mapped_column(primary_key=True)
    handled_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    """When it was told last, as duplicates count, too: how long the row is needed follows from that."""


class StreamReaderRow(Base):
    """How far one durable has handled this service's stream, and what the stream dropped before it had."""

    __tablename__ = "stream_readers"

    durable: Mapped[str] = mapped_column(primary_key=True)
    stream_created: Mapped[datetime]
    handled_seq: Mapped[int] = mapped_column(BigInteger)
    handled_at: Mapped[datetime]
    lost_from: Mapped[datetime | None]
    lost_to: Mapped[datetime | None]
    sent_seq: Mapped[int | None] = mapped_column(BigInteger)


class IdempotencyKeyRow(Base):
    """The claim of one `Idempotency-Key` and, once its request has committed it, the stored answer."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("ix_idempotency_keys_claimed_at", "claimed_at"),)

    scope: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    claimed_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    status: Mapped[int | None] = mapped_column(SmallInteger)
    body: Mapped[bytes | None] = mapped_column(LargeBinary)


class ResourceRow(Base):
    """Which organization a resource of any service belongs to, learned from event headers."""

    __tablename__ = "replica_resources"

    resource_type: Mapped[str] = mapped_column(primary_key=True)
    resource_id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    parent_id: Mapped[str | None]
