"""Tables of plans, accounts, reservations and the ledger."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class PlanTier(Base):
    """What a plan costs and allows; the one place for it, seeded once and then the operator's."""

    __tablename__ = "plan_tiers"

    tier: Mapped[str] = mapped_column(primary_key=True)
    price_micro_usd: Mapped[int] = mapped_column(BigInteger)
    workflows_limit: Mapped[int]
    agents_limit: Mapped[int]
    storage_limit_gb: Mapped[int]
    included_micro_usd: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(server_default=text("1"))


class Account(Base):
    """The billing account of an organization. The three balances are the sums of its ledger entries.

    `organization_version`: the version of the organization that the address is from; 0 where it was never told.
    """

    __tablename__ = "billing_accounts"
    __table_args__ = (
        Index("uq_billing_accounts_organization", "organization_id", unique=True),
        CheckConstraint("workflows_reserved >= 0 AND reserved_micro_usd >= 0", name="reserved_not_negative"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    tier: Mapped[str] = mapped_column(ForeignKey("plan_tiers.tier"), server_default=text("'free'"))
    status: Mapped[str] = mapped_column(server_default=text("'pending'"))
    billing_email: Mapped[str | None]
    organization_version: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    # Only the release before revision 0002 reads these three, while it is replaced; a later one drops them.
    workflows_limit: Mapped[int] = mapped_column(server_default=text("5"))
    agents_limit: Mapped[int] = mapped_column(server_default=text("1"))
    included_micro_usd: Mapped[int] = mapped_column(BigInteger, server_default=text("5000000"))
    workflows_used: Mapped[int] = mapped_column(server_default=text("0"))
    sandbox_ms_used: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    workflows_reserved: Mapped[int] = mapped_column(server_default=text("0"))
    period_ends_at: Mapped[datetime]
    # What was given this month; null where the account was opened before revision 0006: what the plan includes.
    allowance_micro_usd: Mapped[int | None] = mapped_column(BigInteger)
    # What was left of the last month's allowance when it ended; usage of that month that is told late takes from it.
    lapsed_micro_usd: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    available_micro_usd: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    reserved_micro_usd: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    spent_micro_usd: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    workflows_completed: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    auto_billing_enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    tax_exempt: Mapped[bool] = mapped_column(server_default=text("false"))
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Reservation(Base):
    """A slot and a budget for one execution. States: held, confirmed, settled, released, expired."""

    __tablename__ = "reservations"
    __table_args__ = (
        Index("uq_reservations_execution", "execution_id", unique=True),
        Index("ix_reservations_expires_at", "expires_at", postgresql_where=text("state = 'held'")),
        Index("ix_reservations_organization", "organization_id", "created_at"),
        Index("ix_reservations_checked_at", "checked_at", postgresql_where=text("state = 'confirmed'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    execution_id: Mapped[str]
    organization_id: Mapped[str]
    spec_id: Mapped[str]
    project_id: Mapped[str]
    state: Mapped[str] = mapped_column(server_default=text("'held'"))
    reserved_micro_usd: Mapped[int] = mapped_column(BigInteger)
    spent_micro_usd: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    overdrawn: Mapped[bool] = mapped_column(server_default=text("false"))
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    """Rises with every change, also when an expired reservation is taken again; its events carry it."""
    expires_at: Mapped[datetime]
    checked_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When it was last known or asked whether the execution goes on."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]


class LedgerEntry(Base):
    """One side of a posting; the entries of a posting sum up to zero."""

    __tablename__ = "ledger_entries"
    __table_args__ = (
        Index("ix_ledger_entries_organization", "organization_id", "account"),
        Index("ix_ledger_entries_posting", "posting_id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    posting_id: Mapped[str]
    organization_id: Mapped[str]
    account: Mapped[str]
    amount_micro_usd: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str]
    reference: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
