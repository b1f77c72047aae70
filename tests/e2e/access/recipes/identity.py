"""Calls of identity's operations."""

from __future__ import annotations

from dataclasses import replace

from tests.e2e.access.recipe import Recipe, Scope
from tests.e2e.world import PASSWORD

LEAVER = frozenset({"leaver_token"})

ACCOUNTS = {
    "tokens.jwks": Recipe(scope=Scope.ONESELF),
    "auth.register": Recipe(body={"email": "matrix-{unique}@example.com", "password": PASSWORD}, scope=Scope.ONESELF),
    "auth.login": Recipe(body={"email": "{leaver_email}", "password": PASSWORD}, scope=Scope.ONESELF),
    "auth.refresh": Recipe(body={"refresh_token": "{leaver_refresh_token}"}, scope=Scope.ONESELF),
    "auth.logout": Recipe(scope=Scope.ONESELF, by="leaver", needs=LEAVER, alone=True),
    "auth.logout_everywhere": Recipe(scope=Scope.ONESELF, by="leaver", needs=LEAVER, alone=True),
    "auth.resend_verification": Recipe(body={"email": "{unconfirmed_email}"}, scope=Scope.ONESELF),
    "auth.verify_email": Recipe(body={"token": "{confirmation_token}"}, scope=Scope.ONESELF),
    "auth.forgot_password": Recipe(body={"email": "{leaver_email}"}, scope=Scope.ONESELF),
    "auth.reset_password": Recipe(
        body={"token": "{reset_token}", "new_password": PASSWORD + "-3"}, scope=Scope.ONESELF
    ),
    # Everybody of the tests has a password already: 409 tells that access was granted.
    "auth.set_password": Recipe(body={"new_password": PASSWORD + "-4"}, scope=Scope.ONESELF, answered=409),
    "auth.list_sessions": Recipe(scope=Scope.ONESELF),
    "auth.end_session": Recipe(scope=Scope.PERSON, by="leaver"),
    "auth.list_waitlist": Recipe(by="super_admin"),
    "auth.approve": Recipe(path={"user_id": "{new_user_id}"}, by="super_admin"),
    "auth.approve_all": Recipe(by="super_admin"),
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
    "auth.rotate_api_key": Recipe(scope=Scope.PERSON),
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
    "organizations.owner_info": Recipe(by="super_admin"),
    "organizations.add_member": Recipe(body={"user_id": "{new_user_id}", "role_id": "{member_role_id}"}),
    "organizations.list_members": Recipe(),
    "organizations.change_member": Recipe(body={"role_id": "{viewer_role_id}"}),
    "organizations.remove_member": Recipe(),
    "organizations.restore_organization": Recipe(path={"org_id": "{archived_org_id}"}, scope=Scope.PERSON),
    "organizations.transfer_organization": Recipe(
        path={"org_id": "{spare_member_org_id}"}, body={"member_id": "{spare_member_id}"}
    ),
    "organizations.leave_organization": Recipe(
        path={"org_id": "{spare_org_id}"}, scope=Scope.PERSON, by="viewer", alone=True
    ),
    "organizations.invite": Recipe(body={"email": "invited-{unique}@example.com", "role_id": "{member_role_id}"}),
    "organizations.list_invitations": Recipe(),
    "organizations.resend_invitation": Recipe(),
    "organizations.revoke_invitation": Recipe(),
    "organizations.list_own_invitations": Recipe(scope=Scope.ONESELF),
    "organizations.look_up_invitation": Recipe(body={"token": "{invitation_token}"}, scope=Scope.ONESELF),
    "organizations.accept_invitation": Recipe(
        body={"token": "{invitation_token}"}, scope=Scope.PERSON, by="leaver", foreign=403
    ),
    "organizations.decline_invitation": Recipe(
        body={"token": "{invitation_token}"}, scope=Scope.PERSON, by="leaver", foreign=403
    ),
    "organizations.accept_own_invitation": Recipe(scope=Scope.PERSON, by="leaver"),
    "organizations.decline_own_invitation": Recipe(scope=Scope.PERSON, by="leaver"),
    "organizations.list_member_api_keys": Recipe(),
    "organizations.end_member_api_key": Recipe(path={"key_id": "{member_key_id}"}),
    "organizations.list_roles": Recipe(),
    "organizations.create_role": Recipe(body={"name": "role {unique}", "permissions": ["ticket:read"]}),
    "organizations.update_role": Recipe(body={"description": "Changed"}),
    "organizations.delete_role": Recipe(),
}
ONBOARDING = {
    "onboarding.get_status": Recipe(scope=Scope.ONESELF),
    "onboarding.set_step": Recipe(body={"step": "organization"}, scope=Scope.ONESELF),
    "onboarding.complete": Recipe(body={"data": {}}, scope=Scope.ONESELF),
    "onboarding.reset": Recipe(scope=Scope.ONESELF),
    "onboarding.detect": Recipe(scope=Scope.ONESELF),
    "onboarding.sync": Recipe(
        body={
            "current_step": "organization",
            "completed_steps": ["welcome"],
            "completed_checklist_items": [],
            "local_sync_version": 0,
        },
        scope=Scope.ONESELF,
    ),
    "onboarding.admin_reset": Recipe(path={"user_id": "{new_user_id}"}, by="super_admin"),
}
_NOT_ENDING = Recipe(scope=Scope.ONESELF, answered=404)
USERS = {
    "users.get_own": Recipe(scope=Scope.ONESELF),
    "users.update_own": Recipe(body={"department": "Tests"}, scope=Scope.ONESELF),
    "users.delete_own": Recipe(
        body={"current_password": PASSWORD}, scope=Scope.ONESELF, by="leaver", needs=LEAVER, alone=True
    ),
    # Nobody of the tests wants his account to end: 404 tells that access was granted.
    "users.get_deletion": _NOT_ENDING,
    "users.cancel_deletion": _NOT_ENDING,
    "users.export_own": Recipe(scope=Scope.ONESELF),
    "users.get_preferences": Recipe(scope=Scope.ONESELF),
    "users.update_preferences": Recipe(body={"theme": "dark"}, scope=Scope.ONESELF),
    # A JSON body is no picture.
    "users.set_avatar": Recipe(body={"no": "picture"}, scope=Scope.ONESELF, answered=422),
    "users.remove_avatar": Recipe(scope=Scope.ONESELF),
    "users.get_avatar": Recipe(
        path={"user_id": "{new_user_id}", "digest": "0" * 64}, scope=Scope.ONESELF, answered=404
    ),
    "users.list_own_organizations": Recipe(scope=Scope.ONESELF),
    "users.get_permissions": Recipe(query={"organization_id": "{org_id}"}),
    "users.get_limits": Recipe(query={"organization_id": "{org_id}"}),
    "users.get_user": Recipe(path={"user_id": "{colleague_id}"}),
    "users.list_users": Recipe(by="super_admin"),
    "users.update_user": Recipe(path={"user_id": "{new_user_id}"}, body={"is_verified": True}, by="super_admin"),
}
AUDIT = {
    "audit.list_organization_audit": Recipe(),
    "audit.list_own_audit": Recipe(scope=Scope.ONESELF),
    "audit.list_user_audit": Recipe(path={"user_id": "{new_user_id}"}, by="super_admin"),
}
_OWN_KEY = Recipe(path={"provider": "anthropic"}, query={"name": "{credential_name}"}, scope=Scope.PERSON, by="leaver")
CREDENTIALS = {
    "credentials.list_credentials": Recipe(scope=Scope.ONESELF),
    "credentials.save_credential": Recipe(
        path={"provider": "anthropic"},
        body={"api_key": "sk-ant-0123456789"},
        scope=Scope.ONESELF,
        by="leaver",
        needs=LEAVER,
        alone=True,
    ),
    "credentials.change_credential": replace(_OWN_KEY, body={"model": "claude"}),
    "credentials.delete_credential": _OWN_KEY,
    # The provider's host is one that no name server knows.
    "credentials.validate_credential": replace(_OWN_KEY, answered=422),
}
# No provider is configured on the stack of the tests: 400 tells that access was granted.
_OAUTH = {
    "list_providers": Recipe(scope=Scope.ONESELF),
    "redirect_uri": Recipe(path={"provider": "github"}, scope=Scope.ONESELF),
    "sign_in_url": Recipe(path={"provider": "github"}, scope=Scope.ONESELF, answered=400),
    "sign_in": Recipe(path={"provider": "github"}, scope=Scope.ONESELF, answered=400),
    "callback": Recipe(path={"provider": "github"}, scope=Scope.ONESELF, answered=307),
    "list_connected": Recipe(scope=Scope.ONESELF),
    "connect": Recipe(path={"provider": "github"}, scope=Scope.ONESELF, answered=400),
    "disconnect": Recipe(path={"provider": "github"}, scope=Scope.ONESELF, answered=404),
    "copy_tokens": Recipe(
        path={"provider": "github"},
        body={"source_email": "{leaver_email}"},
        by="super_admin",
        answered=400,
    ),
}
OAUTH = {f"{mount}.{name}": recipe for mount in ("oauth", "auth_oauth") for name, recipe in _OAUTH.items()}

RECIPES: dict[str, Recipe] = {**ACCOUNTS, **USERS, **ONBOARDING, **AUDIT, **CREDENTIALS, **OAUTH}
