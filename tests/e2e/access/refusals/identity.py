"""What identity refuses because of the state of accounts, organizations and what belongs to them."""

from __future__ import annotations

from tests.e2e.access.recipe import Recipe
from tests.e2e.access.refusals.refusal import Refusal
from tests.e2e.world import PASSWORD

_HOARDER = "{hoarder_token}"
_HOARD = {"org_id": "{hoarder_org_id}"}
_OWN = {"member_id": "{hoarder_member_id}", **_HOARD}
_INVITE = {"role_id": "{member_role_id}"}

REFUSALS = (
    Refusal("auth.set_password", "identity.password_is_set", Recipe(body={"new_password": PASSWORD + "-5"})),
    Refusal("auth.create_api_key", "identity.too_many_api_keys", Recipe(body={"name": "one more"}), _HOARDER),
    Refusal(
        "credentials.save_credential",
        "identity.too_many_credentials",
        Recipe(path={"provider": "openai"}, body={"api_key": "sk-0123456789", "name": "one more"}),
        _HOARDER,
    ),
    Refusal("users.delete_own", "identity.sole_owner", Recipe(body={"current_password": PASSWORD}), _HOARDER),
    Refusal(
        "users.update_user",
        "identity.not_on_yourself",
        Recipe(path={"user_id": "{super_admin_id}"}, body={"is_super_admin": False}, by="super_admin"),
    ),
    Refusal(
        "organizations.create_organization",
        "identity.slug_taken",
        Recipe(body={"name": "The same", "slug": "{hoarder_slug}"}),
        status=400,
    ),
    Refusal("organizations.restore_organization", "identity.organization_is_active", Recipe()),
    # Membership
    Refusal(
        "organizations.add_member",
        "identity.already_member",
        Recipe(body={"user_id": "{colleague_id}", "role_id": "{member_role_id}"}),
    ),
    Refusal("organizations.leave_organization", "identity.last_owner", Recipe(path=_HOARD), _HOARDER),
    Refusal(
        "organizations.change_member",
        "identity.last_owner",
        Recipe(path=_OWN, body={"role_id": "{viewer_role_id}"}),
        _HOARDER,
    ),
    Refusal("organizations.remove_member", "identity.last_owner", Recipe(path=_OWN), _HOARDER),
    # Invitations
    Refusal("organizations.invite", "identity.already_member", Recipe(body={"email": "{colleague_email}", **_INVITE})),
    Refusal("organizations.invite", "identity.invitation_exists", Recipe(body={"email": "{invited_email}", **_INVITE})),
    Refusal(
        "organizations.invite",
        "identity.too_many_invitations",
        Recipe(path=_HOARD, body={"email": "one-more@example.com", **_INVITE}),
        _HOARDER,
    ),
    Refusal(
        "organizations.resend_invitation",
        "identity.too_many_invitations",
        Recipe(path={"invitation_id": "{hoarder_invitation_id}", **_HOARD}),
        _HOARDER,
    ),
    Refusal(
        "organizations.resend_invitation",
        "identity.invitation_exists",
        Recipe(path={"invitation_id": "{renewed_invitation_id}"}),
    ),
    Refusal(
        "organizations.accept_invitation",
        "identity.already_member",
        Recipe(body={"token": "{joined_invitation_token}"}),
        "{joined_token}",
    ),
    Refusal(
        "organizations.accept_own_invitation",
        "identity.already_member",
        Recipe(path={"invitation_id": "{joined_invitation_id}"}),
        "{joined_token}",
    ),
    # Roles
    Refusal(
        "organizations.create_role",
        "identity.role_name_taken",
        Recipe(body={"name": "{root_role_name}", "permissions": ["ticket:read"]}),
    ),
    Refusal(
        "organizations.update_role",
        "identity.role_name_taken",
        Recipe(path={"role_id": "{leaf_role_id}"}, body={"name": "{root_role_name}"}),
    ),
    Refusal(
        "organizations.create_role",
        "identity.role_cycle",
        Recipe(body={"name": "deeper {unique}", "permissions": [], "inherits_from": "{leaf_role_id}"}),
    ),
    Refusal(
        "organizations.update_role",
        "identity.role_cycle",
        Recipe(path={"role_id": "{root_role_id}"}, body={"inherits_from": "{leaf_role_id}"}),
    ),
    Refusal("organizations.delete_role", "identity.role_in_use", Recipe(path={"role_id": "{root_role_id}"})),
    Refusal(
        "organizations.create_role",
        "identity.too_many_roles",
        Recipe(path=_HOARD, body={"name": "one more", "permissions": ["ticket:read"]}),
        _HOARDER,
    ),
    Refusal(
        "organizations.delete_role",
        "identity.role_is_system",
        Recipe(path={"role_id": "{viewer_role_id}"}),
        status=400,
    ),
)
