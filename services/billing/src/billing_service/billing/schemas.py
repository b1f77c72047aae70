"""Answers of `/billing`. Amounts are USD."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from billing_service.ledger.rules import UNLIMITED, Plan, given
from billing_service.ledger.tables import Account


def usd(micro: int) -> float:
    """Micro-USD as the contract's USD number."""
    return micro / 1_000_000


class AccountOut(BaseModel):
    """The billing account of an organization."""

    id: str
    organization_id: str
    tier: str
    stripe_customer_id: str | None = None
    has_payment_method: bool = False
    status: str
    free_workflows_remaining: int
    free_workflows_reset_at: datetime
    credit_balance: float
    allowance_balance: float
    reserved_balance: float
    auto_billing_enabled: bool
    billing_email: str | None
    tax_exempt: bool
    total_workflows_completed: int
    total_amount_spent: float
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: Account, plan: Plan) -> AccountOut:
        """From the row and its plan."""
        return cls(
            id=row.id,
            organization_id=row.organization_id,
            tier=row.tier,
            status=row.status,
            free_workflows_remaining=remaining(row, plan),
            free_workflows_reset_at=row.period_ends_at,
            credit_balance=usd(credit(row, plan)),
            allowance_balance=usd(row.available_micro_usd - credit(row, plan)),
            reserved_balance=usd(row.reserved_micro_usd),
            auto_billing_enabled=row.auto_billing_enabled,
            billing_email=row.billing_email,
            tax_exempt=row.tax_exempt,
            total_workflows_completed=row.workflows_completed,
            total_amount_spent=usd(row.spent_micro_usd),
            created_at=row.created_at,
            updated_at=row.updated_at,
        )


class UsageSummaryOut(BaseModel):
    """What of the plan is used, and whether another execution may start."""

    subscription_tier: str | None
    workflows_used: int
    workflows_reserved: int
    workflows_limit: int
    free_workflows_remaining: int
    credit_balance: float
    can_execute: bool
    reason: str


class CheckExecutionOut(BaseModel):
    """Whether an execution may start now; nothing is reserved."""

    can_execute: bool
    reason: str


def credit(row: Account, plan: Plan) -> int:
    """Prepaid micro-USD: what is available beyond the monthly allowance."""
    return max(0, row.available_micro_usd - given(row.allowance_micro_usd, plan))


def remaining(row: Account, plan: Plan) -> int:
    """Executions left this month; -1 is unlimited."""
    if plan.workflows_limit == UNLIMITED:
        return UNLIMITED
    return max(0, plan.workflows_limit - row.workflows_used - row.workflows_reserved)
