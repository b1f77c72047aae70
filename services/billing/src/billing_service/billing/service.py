"""Accounts as their owners see them."""

from __future__ import annotations

from billing_service.billing import schemas
from billing_service.billing.schemas import AccountOut, CheckExecutionOut, UsageSummaryOut
from billing_service.costs.schemas import CostRecordOut, CostSummaryOut
from billing_service.costs.service import CostService
from billing_service.errors import ACCOUNT_NOT_FOUND
from billing_service.ledger import rules as ledger_rules
from billing_service.ledger.service import LedgerService, standing_of
from billing_service.ledger.tables import Account
from servicekit.auth import Principal
from servicekit.db import Database

# The contract's codes for why an execution may start or not.
_REFUSALS = {"account": "account_suspended", "workflows": "payment_required", "credit": "payment_required"}


class BillingService:
    """Use cases of `/billing/account`."""

    def __init__(self, db: Database, ledger: LedgerService, costs: CostService) -> None:
        self._db = db
        self._ledger = ledger
        self._costs = costs

    async def get_account(self, principal: Principal, organization_id: str) -> AccountOut:
        """The account; made on first sight when the organization's event has not arrived."""
        return AccountOut.of(await self._account(principal, organization_id))

    async def usage_summary(self, principal: Principal, organization_id: str) -> UsageSummaryOut:
        """What of the plan is used."""
        account = await self._account(principal, organization_id)
        check = _check(account)
        return UsageSummaryOut(
            subscription_tier=account.tier,
            workflows_used=account.workflows_used,
            workflows_reserved=account.workflows_reserved,
            workflows_limit=account.workflows_limit,
            free_workflows_remaining=schemas.remaining(account),
            credit_balance=schemas.usd(account.available_micro_usd),
            can_execute=check.can_execute,
            reason=check.reason,
        )

    async def check_execution(self, principal: Principal, organization_id: str) -> CheckExecutionOut:
        """Whether an execution may start now."""
        return _check(await self._account(principal, organization_id))

    async def costs(self, principal: Principal, organization_id: str, limit: int) -> list[CostRecordOut]:
        """The newest cost records of the organization."""
        account = await self._account(principal, organization_id)
        return await self._costs.records_of_account(organization_id, account.id, limit)

    async def cost_summary(self, principal: Principal, organization_id: str) -> CostSummaryOut:
        """What the organization cost so far."""
        await self._account(principal, organization_id)
        return await self._costs.of_account(organization_id)

    async def _account(self, principal: Principal, organization_id: str) -> Account:
        principal.require("billing:read", organization_id, ACCOUNT_NOT_FOUND)
        await self._ledger.ensure_account(organization_id)
        async with self._db.uow() as tx:
            return await self._ledger.account(tx, organization_id)


def _check(account: Account) -> CheckExecutionOut:
    stop = ledger_rules.refusal(standing_of(account), 0)
    if stop is not None:
        return CheckExecutionOut(can_execute=False, reason=_REFUSALS[stop[0]])
    if account.workflows_limit == ledger_rules.UNLIMITED:
        return CheckExecutionOut(can_execute=True, reason="enterprise_unlimited")
    return CheckExecutionOut(can_execute=True, reason="free_tier" if account.tier == "free" else "subscription_quota")
