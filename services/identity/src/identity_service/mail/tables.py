"""The mails to send and those that were sent."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, LargeBinary, func, text
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class Mail(Base):
    """One mail. `sealed_context` holds links that open accounts: encrypted, and emptied when the mail is done with."""

    __tablename__ = "mails"
    __table_args__ = (
        Index("uq_mails_dedupe_key", "dedupe_key", unique=True),
        Index(
            "ix_mails_open", "due_at", postgresql_where=text("state = ANY (ARRAY['queued', 'sending', 'transmitting'])")
        ),
        Index("ix_mails_state", "state", "updated_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    dedupe_key: Mapped[str]
    template: Mapped[str]
    recipient: Mapped[str]
    sealed_context: Mapped[bytes | None] = mapped_column(LargeBinary)
    state: Mapped[str] = mapped_column(server_default=text("'queued'"))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    last_error: Mapped[str | None]
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
