"""`/api/v1/costs`, and the costs of a billing account."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from billing_service import errors
from billing_service.costs.schemas import CostRecordOut, CostSummaryOut, Forecast, ForecastOut, Scope
from billing_service.costs.service import CostService
from servicekit.auth import CurrentUser
from servicekit.http import problems

Id = Annotated[str, Query(max_length=100)]
Limit = Annotated[int, Query(ge=1, le=1000)]


def router(costs: CostService) -> APIRouter:
    """What work costs."""
    routes = APIRouter(prefix="/api/v1", tags=["costs"])

    @routes.get("/costs/records")
    async def list_records(
        user: CurrentUser, task_id: Id | None = None, agent_id: Id | None = None, limit: Limit = 100
    ) -> list[CostRecordOut]:
        """The newest cost records of the caller's organizations."""
        return await costs.list_records(user, task_id, agent_id, limit)

    @routes.get("/costs/summary", responses=problems(errors.SCOPE_ID_NEEDED, errors.SCOPE_NOT_FOUND))
    async def get_summary(user: CurrentUser, scope_type: Scope, scope_id: Id | None = None) -> CostSummaryOut:
        """What a scope cost, and on what. The scope `global` is a super admin's."""
        return await costs.summary(user, scope_type, scope_id)

    @routes.post("/costs/forecast")
    async def forecast(body: Forecast, user: CurrentUser) -> ForecastOut:
        """What so many tasks will probably cost."""
        return await costs.forecast(body)

    @routes.get("/billing/account/{organization_id}/costs", responses=problems(errors.ACCOUNT_NOT_FOUND))
    async def list_account_costs(organization_id: UUID, user: CurrentUser, limit: Limit = 100) -> list[CostRecordOut]:
        """The newest cost records of an organization."""
        return await costs.account_records(user, str(organization_id), limit)

    @routes.get("/billing/account/{organization_id}/costs/summary", responses=problems(errors.ACCOUNT_NOT_FOUND))
    async def account_cost_summary(organization_id: UUID, user: CurrentUser) -> CostSummaryOut:
        """What an organization cost so far."""
        return await costs.account_summary(user, str(organization_id))

    return routes
