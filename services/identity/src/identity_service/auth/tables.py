"""API keys, and the secrets of mailed links."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, LargeBinary, func, text
from sqlalchemy.dialects.postgresql import ARRAY, TEXT
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class ApiKey(Base):
    """A long-lived credential of a user; only its SHA-256 is stored."""

    __tablename__ = "api_keys"
    __table_args__ = (
        Index("uq_api_keys_digest", "digest", unique=True),
        Index("ix_api_keys_user", "user_id", "created_at"),
        Index(
            "ix_api_keys_organization", "organization_id", "id", postgresql_where=text("organization_id IS NOT NULL")
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    organization_id: Mapped[str | None]
    name: Mapped[str]
    key_prefix: Mapped[str]
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(TEXT))
    is_active: Mapped[bool] = mapped_column(server_default=text("true"))
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class AccountToken(Base):
    """A secret that was mailed: it works once. Only its SHA-256 is stored.

    `user_id` is None for an address without an account: such a row does nothing but cost the same as a real one.
    """

    __tablename__ = "account_tokens"
    __table_args__ = (
        Index("ix_account_tokens_user", "user_id", "purpose"),
        Index("ix_account_tokens_expires_at", "expires_at"),
    )

    digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    purpose: Mapped[str]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
