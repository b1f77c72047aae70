"""Merges asked for by workflow."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class Merge(Base):
    """A list of branches to merge into one target. States: queued, running, finished, failed.

    `items`: [{task_id, ticket_id, branch, head_sha, attempt}] in order; `outcomes`: [{task_id, outcome, merge_sha,
    conflicting_files, error}] of those done. `lease_until` is the running instance's; after it another one goes on.
    """

    __tablename__ = "merges"
    __table_args__ = (
        Index("ix_merges_open", "created_at", postgresql_where=text("state IN ('queued', 'running')")),
        Index("ix_merges_project", "project_id", "created_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str]
    organization_id: Mapped[str]
    spec_id: Mapped[str | None]
    target_branch: Mapped[str]
    items: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    outcomes: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default=text("'[]'::jsonb"))
    state: Mapped[str] = mapped_column(server_default=text("'queued'"))
    target_sha: Mapped[str | None]
    error: Mapped[str | None]
    tries: Mapped[int] = mapped_column(server_default=text("0"))
    lease_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
