"""One recipe per served operation, by service."""

from __future__ import annotations

from tests.e2e.access.recipe import Recipe, Scope
from tests.e2e.access.recipes import agents, billing, identity, monitoring, vcs, workflow

RECIPES: dict[str, Recipe] = {
    "system.root": Recipe(scope=Scope.ONESELF),
    "system.health": Recipe(scope=Scope.ONESELF),
    **identity.RECIPES,
    **workflow.RECIPES,
    **agents.RECIPES,
    **monitoring.RECIPES,
    **billing.RECIPES,
    **vcs.RECIPES,
}
