"""Tasks, their dependencies, and the limits of their organizations.

A task may be claimed when it is pending, `holds` is 0 and `unmet_dependencies` is 0: all three are kept up to date by
whoever changes what they depend on, so that a claim is a scan of `ix_tasks_ready`, which holds claimable tasks only, in
the order of their score. `ix_tasks_active` counts what a limit counts, `ix_tasks_lease` and `ix_tasks_timeout` are read
by the sweeper, `ix_tasks_backoff` by the job that wakes waiting claims, `ix_tasks_rescore` by the one that keeps scores
fresh, `ix_tasks_released` by the one that looks for missed releases, `ix_tasks_to_merge` by what queues merges.

Lists read (organization | project | ticket, created_at) backwards.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Float, ForeignKey, Index, Integer, desc, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TEXT
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base

READY = "status = 'pending' AND holds = 0 AND unmet_dependencies = 0"
ACTIVE = "status IN ('claiming', 'assigned', 'running', 'validating')"


class Task(Base):
    """One task. Times of leases are the database's; `holds` is a set of `queue.rules.Hold` bits."""

    __tablename__ = "tasks"
    __table_args__ = (
        CheckConstraint(
            "status IN ('pending', 'claiming', 'assigned', 'running', 'pending_validation', 'validating',"
            " 'needs_revision', 'completed', 'failed', 'cancelled')",
            name="status",
        ),
        CheckConstraint("priority IN ('CRITICAL', 'HIGH', 'MEDIUM', 'LOW')", name="priority"),
        CheckConstraint("merge_state IN ('none', 'pending', 'merged', 'conflicted', 'failed')", name="merge_state"),
        CheckConstraint("unmet_dependencies >= 0", name="unmet_dependencies"),
        Index("ix_tasks_ready", "organization_id", "project_id", desc("score"), "id", postgresql_where=text(READY)),
        Index("ix_tasks_active", "organization_id", "project_id", postgresql_where=text(ACTIVE)),
        Index("ix_tasks_lease", "lease_expires_at", postgresql_where=text("status IN ('assigned', 'running')")),
        Index("ix_tasks_timeout", "timeout_at", postgresql_where=text("status = 'running'")),
        Index("ix_tasks_backoff", "not_before", postgresql_where=text("status = 'pending' AND not_before IS NOT NULL")),
        Index("ix_tasks_rescore", "rescore_at", postgresql_where=text("status = 'pending' AND rescore_at IS NOT NULL")),
        Index("ix_tasks_organization_id_created_at_id", "organization_id", "created_at", "id"),
        Index("ix_tasks_organization_id_status_created_at_id", "organization_id", "status", "created_at", "id"),
        Index("ix_tasks_project_id_created_at_id", "project_id", "created_at", "id"),
        Index("ix_tasks_ticket_id_created_at_id", "ticket_id", "created_at", "id"),
        Index("ix_tasks_execution_id_status", "execution_id", "status"),
        Index("ix_tasks_spec_id_merge_state", "spec_id", "merge_state", postgresql_where=text("spec_id IS NOT NULL")),
        Index(
            "ix_tasks_to_merge",
            "project_id",
            "target_branch",
            postgresql_where=text("merge_state = 'pending' AND merge_id IS NULL AND status = 'completed'"),
        ),
        Index("ix_tasks_merge_id", "merge_id", postgresql_where=text("merge_id IS NOT NULL")),
        Index("ix_tasks_spec_task_id", "spec_task_id", postgresql_where=text("spec_task_id IS NOT NULL")),
        Index(
            "ix_tasks_released",
            "updated_at",
            postgresql_where=text("status = 'completed' AND merge_state IN ('none', 'merged')"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    ticket_id: Mapped[str] = mapped_column(ForeignKey("tickets.id", ondelete="CASCADE"))
    spec_id: Mapped[str | None]
    spec_task_id: Mapped[str | None]
    execution_id: Mapped[str | None]
    target_branch: Mapped[str | None]
    phase_id: Mapped[str]
    task_type: Mapped[str]
    title: Mapped[str | None]
    description: Mapped[str | None]
    priority: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="pending")
    score: Mapped[float] = mapped_column(Float, server_default=text("0"))
    rescore_at: Mapped[datetime | None]
    holds: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    unmet_dependencies: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    not_before: Mapped[datetime | None]
    required_capabilities: Mapped[list[str]] = mapped_column(ARRAY(TEXT), server_default=text("'{}'"))
    owned_files: Mapped[list[str]] = mapped_column(ARRAY(TEXT), server_default=text("'{}'"))
    execution_config: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    context: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    attempt: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    sandbox_id: Mapped[str | None]
    assigned_agent_id: Mapped[str | None]
    claimed_at: Mapped[datetime | None]
    lease_expires_at: Mapped[datetime | None]
    leases_lost: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    start_failures: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    """Claims in a row after which no sandbox could be made; `start_error` says why the last one could not."""
    start_error: Mapped[str | None]
    releases: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    """Times in a row that an attempt gave the task back soon after it had taken it, without an end."""
    retry_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    max_retries: Mapped[int] = mapped_column(Integer, server_default=text("3"))
    timeout_seconds: Mapped[int | None] = mapped_column(Integer)
    timeout_at: Mapped[datetime | None]
    deadline_at: Mapped[datetime | None]
    result: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    error_message: Mapped[str | None]
    end_reason: Mapped[str | None]
    branch: Mapped[str | None]
    head_sha: Mapped[str | None]
    merge_state: Mapped[str] = mapped_column(server_default="none")
    merge_id: Mapped[str | None]
    merge_tries: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    resolves_task_id: Mapped[str | None]
    resolution_task_id: Mapped[str | None]
    parent_task_id: Mapped[str | None]
    conversation_id: Mapped[str | None]
    persistence_dir: Mapped[str | None]
    hidden: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    updated_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]


class TaskDependency(Base):
    """`task_id` depends on `depends_on_id`; `satisfied` is set once, when that one is completed and merged."""

    __tablename__ = "task_dependencies"
    __table_args__ = (
        Index("ix_task_dependencies_depends_on_id", "depends_on_id"),
        Index("ix_task_dependencies_open", "depends_on_id", postgresql_where=text("NOT satisfied")),
    )

    task_id: Mapped[str] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True)
    depends_on_id: Mapped[str] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True)
    satisfied: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))


class QueueLimit(Base):
    """What billing told of an organization: tasks at once (-1: no limit), hours used. Asked again when it is old."""

    __tablename__ = "queue_limits"

    organization_id: Mapped[str] = mapped_column(primary_key=True)
    agents_limit: Mapped[int] = mapped_column(Integer)
    sandbox_ms_used: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """Time of its sandboxes in the month that ends at `period_ends_at`, in milliseconds."""
    period_ends_at: Mapped[datetime | None]
    refreshed_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    tier: Mapped[str | None]
    """The plan that the newest event of the account named."""
    account_version: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
