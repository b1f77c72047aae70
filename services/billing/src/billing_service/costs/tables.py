"""Usage with its price."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class PriceVersion(Base):
    """What a model or the time of sandboxes costs from one version on: the highest version is the price.

    Micro-USD per million units. Rows are never changed, so that a cost can be explained by its `price_version`.
    """

    __tablename__ = "prices"

    provider: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    prompt: Mapped[int] = mapped_column(BigInteger)
    completion: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class CostRecord(Base):
    """One usage and what it costs; `listed` false: no price was listed and the default served."""

    __tablename__ = "cost_records"
    __table_args__ = (
        Index("uq_cost_records_usage", "usage_id", unique=True),
        Index("ix_cost_records_organization", "organization_id", "recorded_at", "id"),
        Index("ix_cost_records_task", "task_id"),
        Index("ix_cost_records_agent", "agent_id", "recorded_at"),
        Index("ix_cost_records_ticket", "ticket_id"),
        Index("ix_cost_records_execution", "execution_id"),
        Index("ix_cost_records_phase", "organization_id", "phase_id"),
        Index("ix_cost_records_project", "project_id"),
        Index("ix_cost_records_spec", "spec_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    usage_id: Mapped[str]
    organization_id: Mapped[str]
    project_id: Mapped[str | None]
    spec_id: Mapped[str | None]
    execution_id: Mapped[str | None]
    phase_id: Mapped[str | None]
    ticket_id: Mapped[str | None]
    task_id: Mapped[str | None]
    sandbox_id: Mapped[str | None]
    agent_id: Mapped[str | None]
    kind: Mapped[str]
    provider: Mapped[str]
    model: Mapped[str]
    prompt_tokens: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    completion_tokens: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    sandbox_milliseconds: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    prompt_micro_usd: Mapped[int] = mapped_column(BigInteger)
    completion_micro_usd: Mapped[int] = mapped_column(BigInteger)
    total_micro_usd: Mapped[int] = mapped_column(BigInteger)
    listed: Mapped[bool]
    price_version: Mapped[int]
    # When it was used; `now()` for the release before, which did not say it.
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.now())
