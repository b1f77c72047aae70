"""Table of the keys that users bring for other services."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, LargeBinary, func, text
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class UserCredential(Base):
    """A user's own key for another service. `hint`: the last characters, all that is ever shown."""

    __tablename__ = "user_credentials"
    __table_args__ = (
        Index("uq_user_credentials_name", "user_id", "provider", "name", unique=True),
        Index("uq_user_credentials_default", "user_id", "provider", unique=True, postgresql_where=text("is_default")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    provider: Mapped[str]
    name: Mapped[str]
    sealed_key: Mapped[bytes] = mapped_column(LargeBinary)
    hint: Mapped[str]
    base_url: Mapped[str | None]
    model: Mapped[str | None]
    is_active: Mapped[bool] = mapped_column(server_default=text("true"))
    is_default: Mapped[bool] = mapped_column(server_default=text("false"))
    last_used_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
