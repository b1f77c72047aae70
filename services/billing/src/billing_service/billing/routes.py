"""`/api/v1/billing`."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from billing_service import errors
from billing_service.billing.schemas import AccountOut, CheckExecutionOut, UsageSummaryOut
from billing_service.billing.service import BillingService
from servicekit.auth import CurrentUser
from servicekit.http import problems


def router(billing: BillingService) -> APIRouter:
    """Accounts of organizations."""
    routes = APIRouter(prefix="/api/v1/billing", tags=["billing"])
    missing = problems(errors.ACCOUNT_NOT_FOUND)

    @routes.get("/account/{organization_id}", responses=missing)
    async def get_account(organization_id: UUID, user: CurrentUser) -> AccountOut:
        """The billing account."""
        return await billing.get_account(user, str(organization_id))

    @routes.get("/account/{organization_id}/usage-summary", responses=missing)
    async def usage_summary(organization_id: UUID, user: CurrentUser) -> UsageSummaryOut:
        """What of the plan is used."""
        return await billing.usage_summary(user, str(organization_id))

    @routes.post("/account/{organization_id}/check-execution", responses=missing)
    async def check_execution(organization_id: UUID, user: CurrentUser) -> CheckExecutionOut:
        """Whether an execution may start now; nothing is reserved."""
        return await billing.check_execution(user, str(organization_id))

    return routes
