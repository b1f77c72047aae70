"""Accounts as their owners see them."""

from __future__ import annotations

from billing_service.billing import schemas
from billing_service.billing.schemas import AccountOut, CheckExecutionOut, UsageSummaryOut
from billing_service.ledger import rules as ledger_rules
from billing_service.ledger.service import LedgerService, standing_of
from billing_service.ledger.tables import Account
from servicekit.auth import Principal


class BillingService:
    """Use cases of `/billing/account`."""

    def __init__(self, ledger: LedgerService) -> None:
        self._ledger = ledger

    async def get_account(self, principal: Principal, organization_id: str) -> AccountOut:
        """The account; made on first sight when the organization's event has not arrived."""
        account, plan = await self._ledger.visible_account(principal, organization_id)
        return AccountOut.of(account, plan)

    async def usage_summary(self, principal: Principal, organization_id: str) -> UsageSummaryOut:
        """What of the plan is used."""
        account, plan = await self._ledger.visible_account(principal, organization_id)
        check = _check(account, plan)
        return UsageSummaryOut(
            subscription_tier=account.tier,
            workflows_used=account.workflows_used,
            workflows_reserved=account.workflows_reserved,
            workflows_limit=plan.workflows_limit,
            free_workflows_remaining=schemas.remaining(account, plan),
            credit_balance=schemas.usd(schemas.credit(account, plan)),
            can_execute=check.can_execute,
            reason=check.reason,
        )

    async def check_execution(self, principal: Principal, organization_id: str) -> CheckExecutionOut:
        """Whether an execution may start now."""
        return _check(*await self._ledger.visible_account(principal, organization_id))


def _check(account: Account, plan: ledger_rules.Plan) -> CheckExecutionOut:
    """The contract's codes for why an execution may start or not."""
    stop = ledger_rules.refusal(standing_of(account, plan), 0)
    free = account.tier == "free"
    if stop is not None and stop[0] == "account":
        reason = "account_suspended"
    elif stop is not None:
        reason = "payment_required" if free else "quota_exhausted"
    elif plan.workflows_limit == ledger_rules.UNLIMITED:
        reason = "enterprise_unlimited"
    else:
        reason = "free_tier" if free else "subscription_quota"
    return CheckExecutionOut(can_execute=stop is None, reason=reason)
