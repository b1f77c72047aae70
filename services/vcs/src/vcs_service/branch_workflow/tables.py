"""Branches of tickets."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class TicketBranch(Base):
    """The branch of a ticket. States: open, finished, merged."""

    __tablename__ = "ticket_branches"
    __table_args__ = (Index("uq_ticket_branches_branch", "project_id", "branch", unique=True),)

    ticket_id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str]
    organization_id: Mapped[str]
    branch: Mapped[str]
    base_sha: Mapped[str]
    head_sha: Mapped[str | None]
    merge_sha: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default=text("'open'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
