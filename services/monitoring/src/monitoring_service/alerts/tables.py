"""Tables of alerts."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, Index, func, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TEXT
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class AlertRule(Base):
    """When somebody wants to know. `condition` compares `value` with a number; `routing` names channels."""

    __tablename__ = "alert_rules"
    __table_args__ = (Index("ix_alert_rules_metric", "metric_name"),)

    rule_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    metric_name: Mapped[str]
    condition: Mapped[str]
    severity: Mapped[str]
    routing: Mapped[list[str]] = mapped_column(ARRAY(TEXT))
    is_enabled: Mapped[bool] = mapped_column(Boolean, server_default=text("true"))


class Alert(Base):
    """One alert; while it is open no second one is made by the same rule about the same thing."""

    __tablename__ = "alerts"
    __table_args__ = (
        Index(
            "uq_alerts_open",
            "organization_id",
            "rule_id",
            "fingerprint",
            unique=True,
            postgresql_where=text("resolved_at IS NULL"),
        ),
        Index("ix_alerts_open", "organization_id", "triggered_at", postgresql_where=text("resolved_at IS NULL")),
        Index("ix_alerts_subject", "subject_type", "subject_id", postgresql_where=text("resolved_at IS NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    project_id: Mapped[str | None]
    rule_id: Mapped[str]
    metric_name: Mapped[str]
    severity: Mapped[str]
    current_value: Mapped[float]
    threshold: Mapped[float]
    message: Mapped[str]
    labels: Mapped[dict[str, str]] = mapped_column(JSONB)
    fingerprint: Mapped[str]
    subject_type: Mapped[str]
    subject_id: Mapped[str]
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    triggered_at: Mapped[datetime] = mapped_column(server_default=func.now())
    acknowledged_at: Mapped[datetime | None]
    acknowledged_by: Mapped[str | None]
    resolved_at: Mapped[datetime | None]
    resolved_by: Mapped[str | None]
    resolution_note: Mapped[str | None]
