"""Calls of identity's operations."""

from __future__ import annotations

from tests.e2e.access.recipe import Recipe, Scope
from tests.e2e.world import PASSWORD

LEAVER = frozenset({"leaver_token"})

RECIPES: dict[str, Recipe] = {
    "tokens.jwks": Recipe(scope=Scope.ONESELF),
    "auth.register": Recipe(body={"email": "matrix-{unique}@example.com", "password": PASSWORD}, scope=Scope.ONESELF),
    "auth.login": Recipe(body={"email": "{leaver_email}", "password": PASSWORD}, scope=Scope.ONESELF),
    "auth.refresh": Recipe(body={"refresh_token": "{leaver_refresh_token}"}, scope=Scope.ONESELF),
    "auth.logout": Recipe(scope=Scope.ONESELF, by="leaver", needs=LEAVER, alone=True),
    "auth.me": Recipe(scope=Scope.ONESELF),
    "auth.update_me": Recipe(body={"full_name": "Ada"}, scope=Scope.ONESELF),
    "auth.change_password": Recipe(
        body={"current_password": PASSWORD, "new_password": PASSWORD + "-2"},
        scope=Scope.ONESELF,
        by="leaver",
        needs=LEAVER,
        alone=True,
    ),
    "auth.create_api_key": Recipe(body={"name": "one more"}, scope=Scope.ONESELF),
    "auth.list_api_keys": Recipe(scope=Scope.ONESELF),
    "auth.end_api_key": Recipe(scope=Scope.PERSON),
    # Whoever makes an organization is no stranger any more.
    "organizations.create_organization": Recipe(
        body={"name": "Another", "slug": "another-{unique}"},
        scope=Scope.ONESELF,
        by="leaver",
        needs=LEAVER,
        alone=True,
    ),
    "organizations.list_organizations": Recipe(scope=Scope.ONESELF),
    "organizations.get_organization": Recipe(),
    "organizations.update_organization": Recipe(body={"description": "Changed"}),
    "organizations.archive_organization": Recipe(path={"org_id": "{spare_org_id}"}),
    "organizations.owner_info": Recipe(),
    "organizations.add_member": Recipe(body={"user_id": "{new_user_id}", "role_id": "{member_role_id}"}),
    "organizations.list_members": Recipe(),
    "organizations.change_member": Recipe(body={"role_id": "{viewer_role_id}"}),
    "organizations.remove_member": Recipe(),
    "organizations.list_roles": Recipe(),
    "organizations.create_role": Recipe(body={"name": "role {unique}", "permissions": ["ticket:read"]}),
    "organizations.update_role": Recipe(body={"description": "Changed"}),
    "organizations.delete_role": Recipe(),
}
