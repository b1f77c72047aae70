"""Tables of anomalies."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class Anomaly(Base):
    """Something that is not as it should be, from its detection until it is over; one row for each episode."""

    __tablename__ = "monitor_anomalies"
    __table_args__ = (
        Index("ix_monitor_anomalies_detected", "organization_id", "detected_at"),
        Index(
            "uq_monitor_anomalies_open",
            "subject_type",
            "subject_id",
            "metric_name",
            unique=True,
            postgresql_where=text("resolved_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    project_id: Mapped[str | None]
    subject_type: Mapped[str]
    subject_id: Mapped[str]
    metric_name: Mapped[str]
    anomaly_type: Mapped[str]
    severity: Mapped[str]
    baseline_value: Mapped[float]
    observed_value: Mapped[float]
    deviation_percent: Mapped[float]
    description: Mapped[str]
    labels: Mapped[dict[str, str]] = mapped_column(JSONB)
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    detected_at: Mapped[datetime] = mapped_column(server_default=func.now())
    acknowledged_at: Mapped[datetime | None]
    acknowledged_by: Mapped[str | None]
    resolved_at: Mapped[datetime | None]
