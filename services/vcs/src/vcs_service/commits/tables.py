"""Commits linked to tickets."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class TicketCommit(Base):
    """A commit that belongs to a ticket. `files_list`: path → {status, additions, deletions, patch?}."""

    __tablename__ = "ticket_commits"
    __table_args__ = (
        Index("uq_ticket_commits_ticket_sha", "ticket_id", "commit_sha", unique=True),
        Index("ix_ticket_commits_ticket", "ticket_id", "commit_timestamp", "id"),
        Index("ix_ticket_commits_agent", "agent_id", "commit_timestamp", "id"),
        # Prefix search of short ids needs the byte order, whatever the database's collation.
        Index("ix_ticket_commits_sha", "commit_sha", postgresql_ops={"commit_sha": "text_pattern_ops"}),
        Index("ix_ticket_commits_project", "project_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    project_id: Mapped[str | None]
    ticket_id: Mapped[str]
    task_id: Mapped[str | None]
    agent_id: Mapped[str | None]
    commit_sha: Mapped[str]
    commit_message: Mapped[str] = mapped_column(server_default=text("''"))
    commit_timestamp: Mapped[datetime]
    files_changed: Mapped[int | None]
    insertions: Mapped[int | None]
    deletions: Mapped[int | None]
    files_list: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    linked_at: Mapped[datetime] = mapped_column(server_default=func.now())
    link_method: Mapped[str | None]
