"""The audit trail."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class AuditEntry(Base):
    """One security-relevant action, written in the transaction of the action itself."""

    __tablename__ = "audit_log"
    __table_args__ = (
        Index("ix_audit_log_organization", "organization_id", "id"),
        Index("ix_audit_log_actor", "actor_id", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    action: Mapped[str]
    actor_type: Mapped[str]
    actor_id: Mapped[str | None]
    organization_id: Mapped[str | None]
    address: Mapped[str | None]
    details: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
