"""Tables of the event log."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Index, LargeBinary, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class LogHead(Base):
    """The end of the log: one row. Its lock puts writers in an order, so that numbers are committed in theirs."""

    __tablename__ = "event_log_head"
    __table_args__ = (CheckConstraint("is_head", name="one_row"), {"postgresql_with": {"fillfactor": 50}})

    is_head: Mapped[bool] = mapped_column(Boolean, primary_key=True, server_default=text("true"))
    last_sequence: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))


class LoggedEvent(Base):
    """One event as it came. Its frames have the numbers from `first_sequence` to `last_sequence`.

    A number is never given twice, and a smaller one is never committed after a greater one. `size`: bytes of `payload`.
    """

    __tablename__ = "event_log"
    __table_args__ = (
        Index("ix_event_log_organization", "organization_id", "last_sequence"),
        {"postgresql_partition_by": "RANGE (logged_at)"},
    )

    last_sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    logged_at: Mapped[datetime] = mapped_column(primary_key=True)
    first_sequence: Mapped[int] = mapped_column(BigInteger)
    event_id: Mapped[str] = mapped_column(Uuid(as_uuid=False))
    subject: Mapped[str]
    aggregate_type: Mapped[str]
    aggregate_id: Mapped[str]
    version: Mapped[int] = mapped_column(BigInteger)
    organization_id: Mapped[str | None]
    correlation_id: Mapped[str | None]
    causation_id: Mapped[str | None]
    occurred_at: Mapped[datetime]
    size: Mapped[int]
    payload: Mapped[bytes] = mapped_column(LargeBinary)
