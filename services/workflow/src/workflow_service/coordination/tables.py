"""Executions of specs and their merges.

`uq_executions_open` lets one execution of a spec be open, `uq_merges_open_target` one merge into a branch at a time.
The merge job reads `ix_merges_due`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class Execution(Base):
    """One run of a spec. `state`: running, paused, completed, failed or cancelled."""

    __tablename__ = "executions"
    __table_args__ = (
        CheckConstraint("state IN ('running', 'paused', 'completed', 'failed', 'cancelled')", name="state"),
        Index(
            "uq_executions_open",
            "spec_id",
            unique=True,
            postgresql_where=text("state IN ('running', 'paused')"),
        ),
        Index("ix_executions_spec_id_started_at", "spec_id", "started_at"),
        Index("ix_executions_open", "id", postgresql_where=text("state IN ('running', 'paused')")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    project_id: Mapped[str]
    spec_id: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="running")
    reservation_id: Mapped[str]
    budget_micro_usd: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    target_branch: Mapped[str]
    started_by: Mapped[str]
    reason: Mapped[str | None]
    tasks_completed: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    tasks_failed: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    tasks_cancelled: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    started_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    finished_at: Mapped[datetime | None]


class Merge(Base):
    """One merge that is asked of vcs. `state`: intent, started, finished or failed. `spec_id`: empty for a ticket's."""

    __tablename__ = "merges"
    __table_args__ = (
        CheckConstraint("state IN ('intent', 'started', 'finished', 'failed')", name="state"),
        Index(
            "uq_merges_open_target",
            "project_id",
            "target_branch",
            unique=True,
            postgresql_where=text("state IN ('intent', 'started')"),
        ),
        Index("ix_merges_due", "due_at", postgresql_where=text("state IN ('intent', 'started')")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    project_id: Mapped[str]
    spec_id: Mapped[str]
    target_branch: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="intent")
    items: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    tries: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    due_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    finished_at: Mapped[datetime | None]


class TaskCommits(Base):
    """What vcs has linked of a task's work: commits, and the lines that they add and remove."""

    __tablename__ = "task_commits"

    task_id: Mapped[str] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True)
    commits: Mapped[int] = mapped_column(Integer)
    lines_added: Mapped[int] = mapped_column(BigInteger)
    lines_removed: Mapped[int] = mapped_column(BigInteger)
