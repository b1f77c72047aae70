"""Tables of the ingest room."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Index, Integer, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class SandboxStream(Base):
    """The events of one sandbox as a sequence: who may append, where it stands, and its running totals.

    Its row lock orders the writers of one sandbox. `greatest_event_id`: no recorded event has a greater id, so that a
    greater one is new without being looked up.
    """

    __tablename__ = "sandbox_streams"
    __table_args__ = ({"postgresql_with": {"fillfactor": 70}},)

    sandbox_id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    agent_id: Mapped[str]
    task_id: Mapped[str]
    ticket_id: Mapped[str]
    project_id: Mapped[str]
    spec_id: Mapped[str]
    execution_id: Mapped[str]
    phase_id: Mapped[str] = mapped_column(server_default=text("''"))
    attempt: Mapped[int] = mapped_column(Integer)
    is_open: Mapped[bool] = mapped_column(Boolean, server_default=text("true"))
    close_reason: Mapped[str | None]
    opened_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    last_sequence: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    greatest_event_id: Mapped[str | None] = mapped_column(Uuid(as_uuid=False))
    last_event_at: Mapped[datetime | None]
    last_work_at: Mapped[datetime | None]
    heartbeat_count: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    first_heartbeat_at: Mapped[datetime | None]
    last_heartbeat_at: Mapped[datetime | None]


class SandboxEvent(Base):
    """One reported event. `event_data` is the JSON text as sent; the database never parses it."""

    __tablename__ = "sandbox_events"
    __table_args__ = (
        Index("ix_sandbox_events_event_id", "event_id"),
        {"postgresql_partition_by": "RANGE (created_at)"},
    )

    sandbox_id: Mapped[str] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(primary_key=True)
    event_id: Mapped[str] = mapped_column(Uuid(as_uuid=False))
    event_type: Mapped[str]
    event_data: Mapped[str]
    source: Mapped[str]


class SessionTranscript(Base):
    """The transcript as the release before keeps it; read by nobody, and dropped a release later."""

    __tablename__ = "session_transcripts"

    session_id: Mapped[str] = mapped_column(primary_key=True)
    sandbox_id: Mapped[str]
    organization_id: Mapped[str]
    task_id: Mapped[str]
    transcript_b64: Mapped[str]
    session_metadata: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    updated_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class Transcript(Base):
    """The transcript of a session of a coding agent, as its last event carried it, whichever sandbox it went on in."""

    __tablename__ = "transcripts"
    __table_args__ = (Index("ix_transcripts_updated_at", "updated_at"),)

    organization_id: Mapped[str] = mapped_column(primary_key=True)
    session_id: Mapped[str] = mapped_column(primary_key=True)
    sandbox_id: Mapped[str]
    task_id: Mapped[str]
    transcript_b64: Mapped[str]
    session_metadata: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    updated_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
