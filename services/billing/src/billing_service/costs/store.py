"""SQL of costs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert

from billing_service.costs import rules
from billing_service.costs.tables import CostRecord, PriceVersion
from billing_service.ledger.tables import Account
from servicekit.db import Tx

_SCOPES = {
    "task": CostRecord.task_id,
    "agent": CostRecord.agent_id,
    "ticket": CostRecord.ticket_id,
    "execution": CostRecord.execution_id,
    "phase": CostRecord.phase_id,
    "project": CostRecord.project_id,
    "spec": CostRecord.spec_id,
    "billing_account": CostRecord.organization_id,
}


async def seed_prices(tx: Tx, prices: rules.PriceList) -> None:
    """Inserts the prices that are not there."""
    rows = [
        {
            "provider": provider,
            "model": model,
            "version": price.version,
            "prompt": price.prompt,
            "completion": price.completion,
        }
        for (provider, model), price in prices.items()
    ]
    await tx.session.execute(upsert(PriceVersion).values(rows).on_conflict_do_nothing())


async def prices(tx: Tx) -> Sequence[PriceVersion]:
    """The newest price of each model."""
    query = (
        select(PriceVersion)
        .ext(distinct_on(PriceVersion.provider, PriceVersion.model))
        .order_by(PriceVersion.provider, PriceVersion.model, PriceVersion.version.desc())
    )
    return (await tx.session.execute(query)).scalars().all()


async def add_price(tx: Tx, provider: str, model: str, prompt: int, completion: int) -> PriceVersion | None:
    """Inserts the next version of a price; None when another one was inserted at the same time."""
    last = select(func.coalesce(func.max(PriceVersion.version), 0)).where(
        PriceVersion.provider == provider, PriceVersion.model == model
    )
    statement = (
        upsert(PriceVersion)
        .values(
            provider=provider, model=model, version=last.scalar_subquery() + 1, prompt=prompt, completion=completion
        )
        .on_conflict_do_nothing()
        .returning(PriceVersion)
    )
    return (await tx.session.execute(statement)).scalar_one_or_none()


async def add(tx: Tx, rows: Sequence[dict[str, Any]]) -> Sequence[CostRecord]:
    """Inserts the records whose usage is not known yet; returns those."""
    if not rows:
        return []
    statement = upsert(CostRecord).values(list(rows)).on_conflict_do_nothing().returning(CostRecord)
    return (await tx.session.execute(statement)).scalars().all()


def _conditions(organization_ids: Sequence[str] | None, scope: str | None, scope_id: str | None) -> list[Any]:
    conditions: list[Any] = []
    if organization_ids is not None:
        conditions.append(CostRecord.organization_id.in_(organization_ids))
    if scope is not None and scope != "global":
        conditions.append(_SCOPES[scope] == scope_id)
    return conditions


async def page(
    tx: Tx, organization_ids: Sequence[str] | None, scope: str | None, scope_id: str | None, limit: int
) -> Sequence[Row[CostRecord, str]]:
    """The newest records of a scope in the given organizations (None: in all), each with its account's id."""
    query = (
        select(CostRecord, Account.id)
        .join(Account, Account.organization_id == CostRecord.organization_id)
        .where(*_conditions(organization_ids, scope, scope_id))
        .order_by(CostRecord.recorded_at.desc(), CostRecord.id.desc())
        .limit(limit)
    )
    return (await tx.session.execute(query)).all()


async def breakdown(
    tx: Tx, organization_ids: Sequence[str] | None, scope: str, scope_id: str | None
) -> Sequence[Row[str, str, int, int, int]]:
    """`(provider, model, micro_usd, tokens, records)` of a scope, dearest first."""
    cost = func.sum(CostRecord.total_micro_usd)
    query = (
        select(
            CostRecord.provider,
            CostRecord.model,
            cost.label("micro_usd"),
            func.sum(CostRecord.prompt_tokens + CostRecord.completion_tokens).label("tokens"),
            func.count().label("records"),
        )
        .where(*_conditions(organization_ids, scope, scope_id))
        .group_by(CostRecord.provider, CostRecord.model)
        .order_by(cost.desc(), CostRecord.provider, CostRecord.model)
    )
    return (await tx.session.execute(query)).all()


async def totals(tx: Tx, organization_ids: Sequence[str], since: datetime | None) -> Sequence[Row[str, int, int]]:
    """`(organization_id, micro_usd, records)` since a moment."""
    query = (
        select(
            CostRecord.organization_id,
            func.sum(CostRecord.total_micro_usd).label("micro_usd"),
            func.count().label("records"),
        )
        .where(CostRecord.organization_id.in_(organization_ids))
        .group_by(CostRecord.organization_id)
    )
    if since is not None:
        query = query.where(CostRecord.recorded_at >= since)
    return (await tx.session.execute(query)).all()
