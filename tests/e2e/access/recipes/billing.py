"""Calls of billing's operations."""

from __future__ import annotations

from tests.e2e.access.recipe import Recipe, Scope

RECIPES: dict[str, Recipe] = {
    "costs.list_records": Recipe(scope=Scope.LISTS),
    "costs.get_summary": Recipe(query={"scope_type": "project", "scope_id": "{project_id}"}),
    "costs.forecast": Recipe(body={"pending_task_count": 3}, scope=Scope.ONESELF),
    "costs.list_account_costs": Recipe(),
    "costs.account_cost_summary": Recipe(),
    "billing.get_account": Recipe(),
    "billing.usage_summary": Recipe(),
    "billing.check_execution": Recipe(),
}
