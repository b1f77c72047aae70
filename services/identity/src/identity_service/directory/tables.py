"""Pictures of users, and accounts that are about to be erased."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, LargeBinary, func
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class Avatar(Base):
    """An uploaded picture. `digest` (SHA-256, hex) is part of its address, which therefore never shows another one."""

    __tablename__ = "user_avatars"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    content_type: Mapped[str]
    content: Mapped[bytes] = mapped_column(LargeBinary)
    digest: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class AccountDeletion(Base):
    """A user's wish to be erased; the row goes when he takes it back or when it is done."""

    __tablename__ = "account_deletions"
    __table_args__ = (Index("ix_account_deletions_due", "due_at"),)

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    requested_at: Mapped[datetime] = mapped_column(server_default=func.now())
    due_at: Mapped[datetime]
