"""The audit trail and the heads of its chains."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, LargeBinary, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class AuditEntry(Base):
    """One security-relevant action, written in the transaction of the action itself.

    `position` and `digest` come with the sealing, within seconds: the place in the chain of its organization (of all
    accounts where there is none), counted from 1, and the proof of the entry and all before it.
    """

    __tablename__ = "audit_log"
    __table_args__ = (
        Index("ix_audit_log_organization", "organization_id", "id"),
        Index("ix_audit_log_actor", "actor_id", "id"),
        Index("ix_audit_log_subject", "subject_id", "id"),
        Index("ix_audit_log_unsealed", "id", postgresql_where=text("position IS NULL")),
        Index(
            "uq_audit_log_position",
            text("coalesce(organization_id, '')"),
            "position",
            unique=True,
            postgresql_where=text("position IS NOT NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    action: Mapped[str]
    actor_type: Mapped[str]
    actor_id: Mapped[str | None]
    subject_id: Mapped[str | None]
    organization_id: Mapped[str | None]
    address: Mapped[str | None]
    details: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    position: Mapped[int | None] = mapped_column(BigInteger)
    digest: Mapped[bytes | None] = mapped_column(LargeBinary)


class AuditHead(Base):
    """Where a chain ends. `chain` is an organization's id, or empty for the accounts' chain."""

    __tablename__ = "audit_heads"

    chain: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    sealed_key: Mapped[bytes] = mapped_column(LargeBinary)
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
