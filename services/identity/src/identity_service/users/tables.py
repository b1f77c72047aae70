"""Tables of the accounts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class User(Base):
    """An account. `email` is stored in lower case; an address is one account, also after a soft delete."""

    __tablename__ = "users"
    __table_args__ = (
        Index("uq_users_email", "email", unique=True, postgresql_where=text("deleted_at IS NULL")),
        Index("ix_users_created_at", "created_at"),
        Index("ix_users_waiting", "created_at", postgresql_where=text("waitlist_status <> 'approved'")),
        Index("ix_users_email_begin", "email", postgresql_ops={"email": "text_pattern_ops"}),
        Index("ix_users_name_begin", text("lower(full_name) text_pattern_ops")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    email: Mapped[str]
    password_hash: Mapped[str | None]
    full_name: Mapped[str | None]
    department: Mapped[str | None]
    avatar_url: Mapped[str | None]
    is_active: Mapped[bool] = mapped_column(server_default=text("true"))
    is_verified: Mapped[bool] = mapped_column(server_default=text("false"))
    is_super_admin: Mapped[bool] = mapped_column(server_default=text("false"))
    attributes: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    waitlist_status: Mapped[str] = mapped_column(server_default=text("'approved'"))
    waitlist_metadata: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_login_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
