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

WITHOUT_RECIPE = frozenset(
    {
        "auth.rotate_api_key",
        "users.get_own",
        "users.update_own",
        "users.delete_own",
        "users.get_deletion",
        "users.cancel_deletion",
        "users.export_own",
        "users.get_preferences",
        "users.update_preferences",
        "users.set_avatar",
        "users.remove_avatar",
        "users.list_own_organizations",
        "users.get_permissions",
        "users.get_limits",
        "users.get_user",
        "users.get_avatar",
        "users.list_users",
        "users.update_user",
    }
)
"""Served operations that the matrix does not call yet. Nothing may be added; who gives one a recipe takes it off."""
