"""SQL of plans, accounts, reservations and the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from billing_service.ledger import rules
from billing_service.ledger.tables import Account, LedgerEntry, PlanTier, Reservation
from servicekit.db import Tx
from servicekit.ids import new_id


async def seed_tiers(tx: Tx) -> None:
    """Inserts the tiers that are not there; rows that an operator changed stay."""
    await tx.session.execute(
        upsert(PlanTier)
        .values(
            [
                {
                    "tier": tier.name,
                    "price_micro_usd": tier.price_micro_usd,
                    "workflows_limit": tier.workflows,
                    "agents_limit": tier.agents,
                    "storage_limit_gb": tier.storage_gb,
                    "included_micro_usd": tier.included_micro_usd,
                }
                for tier in rules.TIERS
            ]
        )
        .on_conflict_do_nothing()
    )


async def tiers(tx: Tx) -> Sequence[PlanTier]:
    """All tiers, the cheapest first."""
    return (
        (await tx.session.execute(select(PlanTier).order_by(PlanTier.price_micro_usd, PlanTier.tier))).scalars().all()
    )


async def find_tier(tx: Tx, name: str) -> PlanTier:
    """A tier that exists."""
    return (await tx.session.execute(select(PlanTier).where(PlanTier.tier == name))).scalar_one()


async def change_tier(tx: Tx, name: str, changes: Mapping[str, int]) -> PlanTier | None:
    """Sets columns of a tier as its next version; None when there is no such tier."""
    statement = (
        update(PlanTier)
        .where(PlanTier.tier == name)
        .values(version=PlanTier.version + 1, **changes)
        .returning(PlanTier)
        .execution_options(populate_existing=True)
    )
    return (await tx.session.execute(statement)).scalar_one_or_none()


async def add_account(tx: Tx, **values: Any) -> Account | None:
    """Inserts an account; None when the organization has one."""
    statement = upsert(Account).values(**values).on_conflict_do_nothing().returning(Account)
    return (await tx.session.execute(statement)).scalar_one_or_none()


async def find_account(tx: Tx, organization_id: str, *, lock: bool = False) -> Account | None:
    """The account of an organization."""
    query = select(Account).where(Account.organization_id == organization_id).execution_options(populate_existing=True)
    return (await tx.session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()


async def find_accounts(tx: Tx, organization_ids: Sequence[str]) -> Sequence[Account]:
    """The accounts of the organizations that have one."""
    query = select(Account).where(Account.organization_id.in_(organization_ids))
    return (await tx.session.execute(query)).scalars().all()


async def change_account(tx: Tx, account: Account, **changes: Any) -> Account:
    """Sets or, for numbers given as `<name>_by`, adds to columns of an account that the transaction has locked."""
    values: dict[str, Any] = {}
    for name, value in changes.items():
        column = name.removesuffix("_by")
        values[column] = getattr(Account, column) + value if name.endswith("_by") else value
    statement = (
        update(Account)
        .where(Account.id == account.id)
        .values(version=Account.version + 1, updated_at=func.now(), **values)
        .returning(Account)
        .execution_options(populate_existing=True)
    )
    return (await tx.session.execute(statement)).scalar_one()


async def add_reservation(tx: Tx, ttl_s: int, **values: Any) -> Reservation:
    """Inserts a reservation that ends `ttl_s` seconds from now."""
    expires_at = func.clock_timestamp() + timedelta(seconds=ttl_s)
    statement = insert(Reservation).values(id=new_id("reservation-"), expires_at=expires_at, **values)
    return (await tx.session.execute(statement.returning(Reservation))).scalar_one()


async def find_reservation(tx: Tx, execution_id: str, *, lock: bool = False) -> Reservation | None:
    """The reservation of an execution."""
    query = (
        select(Reservation).where(Reservation.execution_id == execution_id).execution_options(populate_existing=True)
    )
    return (await tx.session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()


async def find_reservations(tx: Tx, execution_ids: Sequence[str]) -> Sequence[Reservation]:
    """The reservations of the executions that have one."""
    query = select(Reservation).where(Reservation.execution_id.in_(execution_ids))
    return (await tx.session.execute(query)).scalars().all()


async def list_expired(tx: Tx, limit: int) -> Sequence[str]:
    """Executions whose reservation was never confirmed and whose time is over."""
    query = (
        select(Reservation.execution_id)
        .where(Reservation.state == rules.HELD, Reservation.expires_at <= func.clock_timestamp())
        .order_by(Reservation.expires_at)
        .limit(limit)
    )
    return (await tx.session.execute(query)).scalars().all()


async def take_unchecked(tx: Tx, age_s: float, limit: int) -> Sequence[Reservation]:
    """Confirmed reservations without news for that long, noted as asked after now."""
    before = func.clock_timestamp() - timedelta(seconds=age_s)
    old = (
        select(Reservation.id)
        .where(Reservation.state == rules.CONFIRMED, Reservation.checked_at <= before)
        .order_by(Reservation.checked_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    statement = (
        update(Reservation)
        .where(Reservation.id.in_(old))
        .values(checked_at=func.clock_timestamp())
        .returning(Reservation)
    )
    return (await tx.session.execute(statement)).scalars().all()


async def change_reservation(tx: Tx, reservation: Reservation, *, ended: bool = False, **values: Any) -> Reservation:
    """Sets columns of a reservation that the transaction has locked; `ended` notes when."""
    if ended:
        values["ended_at"] = func.now()
    statement = (
        update(Reservation)
        .where(Reservation.id == reservation.id)
        .values(version=Reservation.version + 1, **values)
        .returning(Reservation)
        .execution_options(populate_existing=True)
    )
    return (await tx.session.execute(statement)).scalar_one()


async def renew_reservation(tx: Tx, reservation: Reservation, ttl_s: int, **values: Any) -> Reservation:
    """Opens an ended reservation again; it ends `ttl_s` seconds from now unless it is confirmed.

    What had been spent on it was settled when it ended, and is not settled with it a second time.
    """
    expires_at = func.clock_timestamp() + timedelta(seconds=ttl_s)
    return await change_reservation(tx, reservation, ended_at=None, expires_at=expires_at, spent_micro_usd=0, **values)


async def post(tx: Tx, account: Account, posting: rules.Posting, reason: str, reference: str) -> Account:
    """Writes a posting and moves the account's balances with it; returns the account as it is then."""
    assert rules.is_balanced(posting)
    amounts = {name: amount for name, amount in posting.items() if amount}
    if not amounts:
        return account
    posting_id = new_id()
    await tx.session.execute(
        insert(LedgerEntry).values(
            [
                {
                    "posting_id": posting_id,
                    "organization_id": account.organization_id,
                    "account": name,
                    "amount_micro_usd": amount,
                    "reason": reason,
                    "reference": reference,
                }
                for name, amount in amounts.items()
            ]
        )
    )
    moved = {
        f"{name}_micro_usd_by": amounts[name]
        for name in (rules.AVAILABLE, rules.RESERVED, rules.SPENT)
        if name in amounts
    }
    return await change_account(tx, account, **moved)


async def imbalances(tx: Tx, after: str, limit: int) -> tuple[list[str], str | None]:
    """Of the next `limit` organizations by id those whose balances differ from their ledger, or with a posting that
    does not sum up to zero; and the last one looked at, None when there was none.
    """
    connection = await tx.connection()
    rows = await connection.fetch(
        """
        SELECT a.organization_id, l.differs OR p.differs AS wrong
        FROM (SELECT * FROM billing_accounts WHERE organization_id > $1 ORDER BY organization_id LIMIT $2) a,
        LATERAL (
            SELECT (a.available_micro_usd, a.reserved_micro_usd, a.spent_micro_usd) IS DISTINCT FROM (
                   coalesce(sum(amount_micro_usd) FILTER (WHERE account = 'available'), 0),
                   coalesce(sum(amount_micro_usd) FILTER (WHERE account = 'reserved'), 0),
                   coalesce(sum(amount_micro_usd) FILTER (WHERE account = 'spent'), 0)) AS differs
            FROM ledger_entries WHERE organization_id = a.organization_id
        ) l,
        LATERAL (
            SELECT EXISTS (SELECT FROM ledger_entries WHERE organization_id = a.organization_id
                           GROUP BY posting_id HAVING sum(amount_micro_usd) <> 0) AS differs
        ) p
        ORDER BY a.organization_id
        """,
        after,
        limit,
    )
    return [row["organization_id"] for row in rows if row["wrong"]], rows[-1]["organization_id"] if rows else None
