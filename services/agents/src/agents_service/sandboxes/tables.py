"""Tables of the sandboxes room."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Identity, Index, Integer, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class Sandbox(Base):
    """An attempt at a task. `state`: running or ended; `end_reason`: completed, failed, cancelled, lost, terminated."""

    __tablename__ = "sandboxes"
    __table_args__ = (
        Index("uq_sandboxes_task_id_attempt", "task_id", "attempt", unique=True),
        Index("ix_sandboxes_organization_id_started_at", "organization_id", "started_at"),
        Index("ix_sandboxes_running", "last_heartbeat_at", postgresql_where=text("state = 'running'")),
        Index("ix_sandboxes_agent_running", "agent_id", postgresql_where=text("state = 'running'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    project_id: Mapped[str]
    task_id: Mapped[str]
    ticket_id: Mapped[str]
    spec_id: Mapped[str]
    execution_id: Mapped[str]
    phase_id: Mapped[str] = mapped_column(server_default=text("''"))
    agent_id: Mapped[str]
    attempt: Mapped[int] = mapped_column(Integer)
    state: Mapped[str]
    engine: Mapped[str]
    isolation: Mapped[str]
    branch: Mapped[str]
    base_sha: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    last_heartbeat_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None]
    completion: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))


class SandboxMessage(Base):
    """A message waiting for, or delivered to, a sandbox; delivered once, in the order of `position`."""

    __tablename__ = "sandbox_messages"
    __table_args__ = (
        Index("ix_sandbox_messages_waiting", "sandbox_id", "position", postgresql_where=text("delivered_at IS NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    sandbox_id: Mapped[str]
    content: Mapped[str]
    message_type: Mapped[str]
    sender_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    delivered_at: Mapped[datetime | None]


class Revocation(Base):
    """The intent to end the tokens of a sandbox or an agent at identity; executed by a job, deleted when done."""

    __tablename__ = "revocations"
    __table_args__ = (Index("ix_revocations_due_at", "due_at"),)

    # The column is named after the only principal that it was for at first.
    principal_id: Mapped[str] = mapped_column("sandbox_id", primary_key=True)
    principal_type: Mapped[str] = mapped_column(server_default=text("'sandbox'"))
    organization_id: Mapped[str]
    reason: Mapped[str]
    due_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
