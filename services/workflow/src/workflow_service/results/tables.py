"""Results that agents report. Read by task or ticket, oldest first; a decision on one is made once."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class AgentResult(Base):
    """The result of one task."""

    __tablename__ = "agent_results"
    __table_args__ = (
        CheckConstraint("verification_status IN ('unverified', 'verified', 'disputed')", name="verification_status"),
        Index("ix_agent_results_task_id_created_at_id", "task_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    task_id: Mapped[str] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    agent_id: Mapped[str]
    markdown_content: Mapped[str]
    markdown_file_path: Mapped[str]
    result_type: Mapped[str]
    summary: Mapped[str]
    verification_status: Mapped[str] = mapped_column(server_default="unverified")
    verified_at: Mapped[datetime | None]
    verified_by_validation_id: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))


class WorkflowResult(Base):
    """The result of a whole workflow, which is a ticket."""

    __tablename__ = "workflow_results"
    __table_args__ = (
        CheckConstraint("status IN ('pending_validation', 'validated', 'rejected')", name="status"),
        Index("ix_workflow_results_workflow_id_created_at_id", "workflow_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    workflow_id: Mapped[str] = mapped_column(ForeignKey("tickets.id", ondelete="CASCADE"))
    agent_id: Mapped[str]
    markdown_content: Mapped[str]
    markdown_file_path: Mapped[str]
    explanation: Mapped[str | None]
    evidence: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    status: Mapped[str] = mapped_column(server_default="pending_validation")
    validated_at: Mapped[datetime | None]
    validated_by: Mapped[str | None]
    validation_feedback: Mapped[str | None]
    validation_evidence: Mapped[list[Any] | None] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
