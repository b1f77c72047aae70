"""SQL of anomalies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from monitoring_service.anomalies.tables import Anomaly
from servicekit.db import Tx


async def open_or_worsen(tx: Tx, **values: Any) -> Anomaly:
    """The open anomaly of a subject and metric with what was observed now; a new row where none is open."""
    observed = ("severity", "observed_value", "deviation_percent", "description")
    statement = (
        upsert(Anomaly)
        .values(**values)
        .on_conflict_do_update(
            index_elements=["subject_type", "subject_id", "metric_name"],
            index_where=text("resolved_at IS NULL"),
            set_={name: values[name] for name in observed} | {"version": Anomaly.version + 1},
        )
        .returning(Anomaly)
        .execution_options(populate_existing=True)
    )
    return (await tx.session.execute(statement)).scalar_one()


async def resolve(tx: Tx, subject_type: str, subject_id: str, metric_name: str) -> Anomaly | None:
    """Ends the open anomaly of a subject and metric; None where none is open."""
    statement = (
        update(Anomaly)
        .where(
            Anomaly.subject_type == subject_type,
            Anomaly.subject_id == subject_id,
            Anomaly.metric_name == metric_name,
            Anomaly.resolved_at.is_(None),
        )
        .values(resolved_at=func.clock_timestamp(), version=Anomaly.version + 1)
        .returning(Anomaly)
        .execution_options(populate_existing=True)
    )
    return (await tx.session.execute(statement)).scalar_one_or_none()


async def open_anomaly(tx: Tx, subject_type: str, subject_id: str, metric_name: str) -> Anomaly | None:
    """The open anomaly of a subject and metric, locked."""
    query = select(Anomaly).where(
        Anomaly.subject_type == subject_type,
        Anomaly.subject_id == subject_id,
        Anomaly.metric_name == metric_name,
        Anomaly.resolved_at.is_(None),
    )
    return (await tx.session.execute(query.with_for_update())).scalar_one_or_none()


async def get(tx: Tx, anomaly_id: str, *, lock: bool = False) -> Anomaly | None:
    """One anomaly."""
    query = select(Anomaly).where(Anomaly.id == anomaly_id)
    return (await tx.session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()


async def acknowledge(tx: Tx, anomaly_id: str, by: str) -> Anomaly:
    """Notes who has seen an anomaly."""
    statement = (
        update(Anomaly)
        .where(Anomaly.id == anomaly_id)
        .values(acknowledged_at=func.clock_timestamp(), acknowledged_by=by, version=Anomaly.version + 1)
        .returning(Anomaly)
        .execution_options(populate_existing=True)
    )
    return (await tx.session.execute(statement)).scalar_one()


async def recent(
    tx: Tx, organizations: Sequence[str], hours: int, severity: str | None, *, limit: int, offset: int
) -> Sequence[Anomaly]:
    """Anomalies detected within the last hours, newest first."""
    query = (
        select(Anomaly)
        .where(
            Anomaly.organization_id.in_(organizations),
            Anomaly.detected_at > func.now() - func.make_interval(0, 0, 0, 0, hours),
        )
        .order_by(Anomaly.detected_at.desc(), Anomaly.id.desc())
        .limit(limit)
        .offset(offset)
    )
    if severity is not None:
        query = query.where(Anomaly.severity == severity)
    return (await tx.session.execute(query)).scalars().all()
