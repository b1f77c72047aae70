"""Tables of the agents room."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class Agent(Base):
    """A registered agent. `last_heartbeat` is the time of receipt by the database's clock."""

    __tablename__ = "agents"
    __table_args__ = (
        Index("ix_agents_organization_id_created_at", "organization_id", "created_at", "id"),
        Index(
            "ix_agents_operational",
            "last_heartbeat",
            postgresql_where=text("status IN ('SPAWNING', 'IDLE', 'RUNNING', 'DEGRADED')"),
        ),
        Index("ix_agents_registered_by", "registered_by", postgresql_where=text("status <> 'TERMINATED'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    agent_name: Mapped[str]
    agent_type: Mapped[str]
    phase_id: Mapped[str | None]
    status: Mapped[str]
    capabilities: Mapped[list[str]] = mapped_column(ARRAY(Text))
    capacity: Mapped[int] = mapped_column(Integer)
    closed: Mapped[bool] = mapped_column(server_default=text("false"))
    """Somebody closed it for tasks: no heartbeat opens it again."""
    health_status: Mapped[str]
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text))
    last_heartbeat: Mapped[datetime | None]
    sequence_number: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    missed_heartbeats: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    current_task_id: Mapped[str | None]
    health_metrics: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    registered_by: Mapped[str]
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    updated_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class AgentStatusTransition(Base):
    """One move of an agent through the status machine."""

    __tablename__ = "agent_status_transitions"
    __table_args__ = (Index("ix_agent_status_transitions_agent_id_transitioned_at", "agent_id", "transitioned_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    agent_id: Mapped[str] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"))
    from_status: Mapped[str]
    to_status: Mapped[str]
    reason: Mapped[str | None]
    triggered_by: Mapped[str | None]
    task_id: Mapped[str | None]
    transitioned_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
