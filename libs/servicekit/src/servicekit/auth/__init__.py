"""Authentication and authorization: principals, tokens, memberships, revocations, the access table."""

from servicekit.auth.access import (
    AGENTS,
    ANY_SERVICE,
    EVERYONE,
    PUBLIC,
    SANDBOXES,
    SERVICES,
    SIGNED_IN,
    USERS,
    WITHOUT_TOKEN,
    Access,
    AccessTable,
    AccessTableMismatch,
)
from servicekit.auth.dependencies import (
    CurrentUser,
    OptionalUser,
    get_current_user,
    get_current_user_optional,
    require_role,
)
from servicekit.auth.permissions import AGENT_PERMISSIONS, SANDBOX_PERMISSIONS, permission_granted, role_satisfies
from servicekit.auth.principal import Membership, Memberships, Principal, PrincipalType

__all__ = [
    "AGENTS",
    "AGENT_PERMISSIONS",
    "ANY_SERVICE",
    "EVERYONE",
    "PUBLIC",
    "SANDBOXES",
    "SANDBOX_PERMISSIONS",
    "SERVICES",
    "SIGNED_IN",
    "USERS",
    "WITHOUT_TOKEN",
    "Access",
    "AccessTable",
    "AccessTableMismatch",
    "CurrentUser",
    "Membership",
    "Memberships",
    "OptionalUser",
    "Principal",
    "PrincipalType",
    "get_current_user",
    "get_current_user_optional",
    "permission_granted",
    "require_role",
    "role_satisfies",
]
