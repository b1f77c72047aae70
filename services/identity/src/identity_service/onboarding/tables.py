"""Where a user stands in the onboarding."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, func, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TEXT
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class Onboarding(Base):
    """One user's progress. `sync_version` grows with every change and guards what a client brings along."""

    __tablename__ = "user_onboarding"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    current_step: Mapped[str] = mapped_column(server_default=text("'welcome'"))
    completed_steps: Mapped[list[str]] = mapped_column(ARRAY(TEXT), server_default=text("'{}'::text[]"))
    completed_checklist_items: Mapped[list[str]] = mapped_column(ARRAY(TEXT), server_default=text("'{}'::text[]"))
    completed_at: Mapped[datetime | None]
    data: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    sync_version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
