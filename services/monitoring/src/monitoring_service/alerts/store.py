"""SQL of alerts and their rules."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from monitoring_service.alerts.tables import Alert, AlertRule
from servicekit.db import Tx


async def rules(tx: Tx) -> Sequence[AlertRule]:
    """All rules by name."""
    return (await tx.session.execute(select(AlertRule).order_by(AlertRule.rule_id))).scalars().all()


async def rules_about(tx: Tx, metrics: Collection[str]) -> Sequence[AlertRule]:
    """The rules in force about these metrics."""
    query = (
        select(AlertRule).where(AlertRule.metric_name.in_(metrics), AlertRule.is_enabled).order_by(AlertRule.rule_id)
    )
    return (await tx.session.execute(query)).scalars().all()


async def trigger(tx: Tx, **values: Any) -> tuple[Alert, bool]:
    """The open alert of a rule about a thing with its newest value, and whether it is a new one."""
    statement = (
        upsert(Alert)
        .values(**values)
        .on_conflict_do_update(
            index_elements=["organization_id", "rule_id", "fingerprint"],
            index_where=text("resolved_at IS NULL"),
            set_={
                "current_value": values["current_value"],
                "message": values["message"],
                "version": Alert.version + 1,
            },
        )
        .returning(Alert)
        .execution_options(populate_existing=True)
    )
    alert = (await tx.session.execute(statement)).scalar_one()
    return alert, alert.id == values["id"]


async def get(tx: Tx, alert_id: str, *, lock: bool = False) -> Alert | None:
    """One alert."""
    query = select(Alert).where(Alert.id == alert_id)
    return (await tx.session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()


async def open_alerts(
    tx: Tx, organizations: Sequence[str], severity: str | None, *, limit: int, offset: int
) -> Sequence[Alert]:
    """Open alerts, newest first."""
    query = (
        select(Alert)
        .where(Alert.organization_id.in_(organizations), Alert.resolved_at.is_(None))
        .order_by(Alert.triggered_at.desc(), Alert.id.desc())
        .limit(limit)
        .offset(offset)
    )
    if severity is not None:
        query = query.where(Alert.severity == severity)
    return (await tx.session.execute(query)).scalars().all()


async def change(tx: Tx, alert_id: str, **values: Any) -> Alert:
    """Updates a locked alert, counts its version up and returns it."""
    statement = (
        update(Alert)
        .where(Alert.id == alert_id)
        .values(**values, version=Alert.version + 1)
        .returning(Alert)
        .execution_options(populate_existing=True)
    )
    return (await tx.session.execute(statement)).scalar_one()


async def acknowledge(tx: Tx, alert_id: str, by: str) -> Alert:
    """Notes who takes care of an alert."""
    return await change(tx, alert_id, acknowledged_at=func.clock_timestamp(), acknowledged_by=by)


async def resolve(tx: Tx, alert_id: str, by: str, note: str | None) -> Alert:
    """Ends an alert."""
    return await change(tx, alert_id, resolved_at=func.clock_timestamp(), resolved_by=by, resolution_note=note)


async def resolve_subject(
    tx: Tx, organization_id: str, subject_type: str, subject_id: str, metrics: Collection[str], by: str, note: str
) -> Sequence[Alert]:
    """Ends all open alerts about a thing and these metrics; returns them."""
    statement = (
        update(Alert)
        .where(
            Alert.organization_id == organization_id,
            Alert.subject_type == subject_type,
            Alert.subject_id == subject_id,
            Alert.metric_name.in_(metrics),
            Alert.resolved_at.is_(None),
        )
        .values(resolved_at=func.clock_timestamp(), resolved_by=by, resolution_note=note, version=Alert.version + 1)
        .returning(Alert)
        .execution_options(populate_existing=True)
    )
    return (await tx.session.execute(statement)).scalars().all()
