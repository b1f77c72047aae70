"""Specs and their parts.

Indexes: the specs of a project are read from (project, created_at) backwards; parts by their parent in their own order.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Float, ForeignKey, Index, Integer, UniqueConstraint
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class Spec(Base):
    """One spec. `generation_status`: none, generating, generated, failed. `execution_status`: none, executing, paused,
    completed, failed, cancelled. `status` is derived from both and kept for existing clients."""

    __tablename__ = "specs"
    __table_args__ = (
        CheckConstraint("generation_status IN ('none', 'generating', 'generated', 'failed')", name="generation_status"),
        CheckConstraint(
            "execution_status IN ('none', 'executing', 'paused', 'completed', 'failed', 'cancelled')",
            name="execution_status",
        ),
        UniqueConstraint("project_id", "target_branch"),
        Index("ix_specs_project_id_created_at_id", "project_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    user_id: Mapped[str | None]
    title: Mapped[str]
    description: Mapped[str | None]
    status: Mapped[str] = mapped_column(server_default="draft")
    generation_status: Mapped[str] = mapped_column(server_default="none")
    execution_status: Mapped[str] = mapped_column(server_default="none")
    archived: Mapped[bool] = mapped_column(Boolean, server_default=sql("false"))
    archived_at: Mapped[datetime | None]
    phase: Mapped[str] = mapped_column(server_default="Requirements")
    current_phase: Mapped[str] = mapped_column(server_default="explore")
    progress: Mapped[float] = mapped_column(Float, server_default=sql("0"))
    test_coverage: Mapped[float] = mapped_column(Float, server_default=sql("0"))
    engine: Mapped[str | None]
    plan: Mapped[str | None]
    budget_micro_usd: Mapped[int] = mapped_column(BigInteger, server_default=sql("0"))
    design: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    requirements_approved: Mapped[bool] = mapped_column(Boolean, server_default=sql("false"))
    requirements_approved_at: Mapped[datetime | None]
    design_approved: Mapped[bool] = mapped_column(Boolean, server_default=sql("false"))
    design_approved_at: Mapped[datetime | None]
    phase_data: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=sql("'{}'::jsonb"))
    phase_attempts: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=sql("'{}'::jsonb"))
    spec_context: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=sql("'{}'::jsonb"))
    last_checkpoint_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
    target_branch: Mapped[str]
    branch_name: Mapped[str | None]
    pull_request_url: Mapped[str | None]
    pull_request_number: Mapped[int | None] = mapped_column(Integer)
    current_execution_id: Mapped[str | None]
    version: Mapped[int] = mapped_column(BigInteger, server_default=sql("1"))
    created_at: Mapped[datetime] = mapped_column(server_default=sql("clock_timestamp()"))
    updated_at: Mapped[datetime] = mapped_column(server_default=sql("clock_timestamp()"))


class Requirement(Base):
    """One requirement. `local_id`: its symbolic id in the plan."""

    __tablename__ = "spec_requirements"
    __table_args__ = (Index("ix_spec_requirements_spec_id_position", "spec_id", "position"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    spec_id: Mapped[str] = mapped_column(ForeignKey("specs.id", ondelete="CASCADE"))
    local_id: Mapped[str | None]
    position: Mapped[int] = mapped_column(Integer)
    title: Mapped[str]
    condition: Mapped[str]
    action: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="pending")
    linked_design: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=sql("clock_timestamp()"))
    updated_at: Mapped[datetime] = mapped_column(server_default=sql("clock_timestamp()"))


class Criterion(Base):
    """One acceptance criterion."""

    __tablename__ = "spec_acceptance_criteria"
    __table_args__ = (
        Index("ix_spec_acceptance_criteria_requirement_id_position", "requirement_id", "position"),
        Index("ix_spec_acceptance_criteria_spec_id", "spec_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    spec_id: Mapped[str] = mapped_column(ForeignKey("specs.id", ondelete="CASCADE"))
    requirement_id: Mapped[str] = mapped_column(ForeignKey("spec_requirements.id", ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(Integer)
    text: Mapped[str]
    completed: Mapped[bool] = mapped_column(Boolean, server_default=sql("false"))
    created_at: Mapped[datetime] = mapped_column(server_default=sql("clock_timestamp()"))
    updated_at: Mapped[datetime] = mapped_column(server_default=sql("clock_timestamp()"))


class SpecTask(Base):
    """One task as the spec states it. `task_id` is the task of the queue made from it, whose state then counts."""

    __tablename__ = "spec_tasks"
    __table_args__ = (
        UniqueConstraint("spec_id", "local_id"),
        Index("ix_spec_tasks_spec_id_position", "spec_id", "position"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    spec_id: Mapped[str] = mapped_column(ForeignKey("specs.id", ondelete="CASCADE"))
    local_id: Mapped[str | None]
    task_id: Mapped[str | None]
    position: Mapped[int] = mapped_column(Integer)
    title: Mapped[str]
    description: Mapped[str | None]
    phase: Mapped[str] = mapped_column(server_default="Implementation")
    priority: Mapped[str] = mapped_column(server_default="medium")
    status: Mapped[str] = mapped_column(server_default="pending")
    assigned_agent: Mapped[str | None]
    dependencies: Mapped[list[str]] = mapped_column(JSONB, server_default=sql("'[]'::jsonb"))
    estimated_hours: Mapped[float | None] = mapped_column(Float)
    actual_hours: Mapped[float | None] = mapped_column(Float)
    created_at: Mapped[datetime] = mapped_column(server_default=sql("clock_timestamp()"))
    updated_at: Mapped[datetime] = mapped_column(server_default=sql("clock_timestamp()"))


class SpecVersion(Base):
    """One recorded change of a spec."""

    __tablename__ = "spec_versions"
    __table_args__ = (UniqueConstraint("spec_id", "version_number"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    spec_id: Mapped[str] = mapped_column(ForeignKey("specs.id", ondelete="CASCADE"))
    version_number: Mapped[int] = mapped_column(BigInteger)
    change_type: Mapped[str]
    change_summary: Mapped[str]
    change_details: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    created_by: Mapped[str | None]
    snapshot: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(server_default=sql("clock_timestamp()"))
