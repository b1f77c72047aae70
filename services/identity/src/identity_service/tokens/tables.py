"""Tables of signing keys, sessions and revocations."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class SigningKey(Base):
    """A key pair for tokens. States: next (published, not yet signing), active, retiring (published, not signing)."""

    __tablename__ = "signing_keys"
    __table_args__ = (
        Index("uq_signing_keys_active", "state", unique=True, postgresql_where=text("state = 'active'")),
        Index("uq_signing_keys_next", "state", unique=True, postgresql_where=text("state = 'next'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    public_jwk: Mapped[dict[str, Any]] = mapped_column(JSONB)
    sealed_private_jwk: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    retired_at: Mapped[datetime | None]


class Session(Base):
    """A sign-in and its family of refresh tokens. `generation` is the only one that may be used."""

    __tablename__ = "sessions"
    __table_args__ = (
        Index("ix_sessions_user", "user_id", postgresql_where=text("ended_at IS NULL")),
        Index("ix_sessions_expires_at", "expires_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    generation: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    rotated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None]
    address: Mapped[str | None]
    user_agent: Mapped[str | None]


class Revocation(Base):
    """Tokens of the principal issued before `not_before` are dead; kept while such a token could still live."""

    __tablename__ = "revocations"
    __table_args__ = (Index("ix_revocations_updated_at", "updated_at"),)

    principal_type: Mapped[str] = mapped_column(primary_key=True)
    principal_id: Mapped[str] = mapped_column(primary_key=True)
    not_before: Mapped[datetime]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
