"""Tickets and everything the transition engine writes.

Indexes: lists read (organization, created_at) or (project, created_at) backwards; a board column reads (project, phase,
created_at); counts come from `ticket_counts` plus the few rows of `ticket_count_deltas`, never from counting tickets.
A trigger on `tickets` writes the deltas, insert-only, so that concurrent writers never wait for one another; a job
folds them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    Integer,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class Ticket(Base):
    """One ticket. `hidden`: its spec is archived, so that lists and boards leave it out."""

    __tablename__ = "tickets"
    __table_args__ = (
        CheckConstraint(
            "status IN ('backlog', 'analyzing', 'building', 'building-done', 'testing', 'done')", name="status"
        ),
        CheckConstraint("priority IN ('CRITICAL', 'HIGH', 'MEDIUM', 'LOW')", name="priority"),
        CheckConstraint(
            "approval_status IN ('approved', 'pending_review', 'rejected', 'timed_out')", name="approval_status"
        ),
        Index(
            "ix_tickets_organization_id_created_at_id",
            "organization_id",
            "created_at",
            "id",
            postgresql_where=text("NOT hidden"),
        ),
        Index(
            "ix_tickets_project_id_created_at_id",
            "project_id",
            "created_at",
            "id",
            postgresql_where=text("NOT hidden"),
        ),
        Index(
            "ix_tickets_project_id_phase_id_created_at_id",
            "project_id",
            "phase_id",
            "created_at",
            "id",
            postgresql_where=text("NOT hidden"),
        ),
        Index("ix_tickets_spec_id", "spec_id"),
        Index("ix_tickets_project_id_content_hash", "project_id", "content_hash"),
        Index(
            "ix_tickets_approval_deadline_at",
            "approval_deadline_at",
            postgresql_where=text("approval_status = 'pending_review'"),
        ),
        Index(
            "ix_tickets_pending_review",
            "organization_id",
            postgresql_where=text("approval_status = 'pending_review'"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    spec_id: Mapped[str | None]
    requirement_id: Mapped[str | None]
    title: Mapped[str]
    description: Mapped[str | None]
    phase_id: Mapped[str]
    status: Mapped[str]
    priority: Mapped[str]
    previous_phase_id: Mapped[str | None]
    is_blocked: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    blocked_reason: Mapped[str | None]
    blocked_at: Mapped[datetime | None]
    context: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    context_summary: Mapped[str | None]
    approval_status: Mapped[str] = mapped_column(server_default="approved")
    approval_deadline_at: Mapped[datetime | None]
    requested_by_agent_id: Mapped[str | None]
    rejection_reason: Mapped[str | None]
    content_hash: Mapped[str | None]
    user_id: Mapped[str | None]
    hidden: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    status_entered_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    updated_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))


class TicketDependency(Base):
    """`ticket_id` may have no work before `blocked_by_id` is done."""

    __tablename__ = "ticket_dependencies"
    __table_args__ = (Index("ix_ticket_dependencies_blocked_by_id", "blocked_by_id"),)

    ticket_id: Mapped[str] = mapped_column(ForeignKey("tickets.id", ondelete="CASCADE"), primary_key=True)
    blocked_by_id: Mapped[str] = mapped_column(ForeignKey("tickets.id", ondelete="CASCADE"), primary_key=True)


class PhaseHistory(Base):
    """One move of a ticket, by whatever way it came."""

    __tablename__ = "phase_history"
    __table_args__ = (Index("ix_phase_history_ticket_id_created_at", "ticket_id", "created_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    ticket_id: Mapped[str] = mapped_column(ForeignKey("tickets.id", ondelete="CASCADE"))
    from_phase: Mapped[str]
    to_phase: Mapped[str]
    from_status: Mapped[str]
    to_status: Mapped[str]
    transition_reason: Mapped[str | None]
    transitioned_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))


class GateArtifact(Base):
    """Evidence for a gate. One of a type and path in a phase of a ticket."""

    __tablename__ = "phase_gate_artifacts"
    __table_args__ = (
        UniqueConstraint(
            "ticket_id",
            "phase_id",
            "artifact_type",
            "artifact_path",
            name="uq_phase_gate_artifacts_one",
            postgresql_nulls_not_distinct=True,
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    ticket_id: Mapped[str] = mapped_column(ForeignKey("tickets.id", ondelete="CASCADE"))
    phase_id: Mapped[str]
    artifact_type: Mapped[str]
    artifact_path: Mapped[str | None]
    artifact_content: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    collected_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    collected_by: Mapped[str]


class GateResult(Base):
    """What one validation of a gate found."""

    __tablename__ = "phase_gate_results"
    __table_args__ = (Index("ix_phase_gate_results_ticket_id_phase_id", "ticket_id", "phase_id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    ticket_id: Mapped[str] = mapped_column(ForeignKey("tickets.id", ondelete="CASCADE"))
    phase_id: Mapped[str]
    gate_status: Mapped[str]
    blocking_reasons: Mapped[list[str]] = mapped_column(JSONB, server_default=text("'[]'::jsonb"))
    validated_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    validated_by: Mapped[str]


class TicketCount(Base):
    """How many tickets of a project are in a phase, with a status and a priority. Hidden ones are not counted."""

    __tablename__ = "ticket_counts"
    __table_args__ = (Index("ix_ticket_counts_organization_id", "organization_id"),)

    project_id: Mapped[str] = mapped_column(primary_key=True)
    phase_id: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(primary_key=True)
    priority: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    tickets: Mapped[int] = mapped_column(BigInteger)


class TicketCountDelta(Base):
    """A change of a count that is not folded in yet."""

    __tablename__ = "ticket_count_deltas"
    __table_args__ = (Index("ix_ticket_count_deltas_project_id", "project_id"),)

    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    organization_id: Mapped[str]
    project_id: Mapped[str]
    phase_id: Mapped[str]
    status: Mapped[str]
    priority: Mapped[str]
    tickets: Mapped[int] = mapped_column(Integer)
