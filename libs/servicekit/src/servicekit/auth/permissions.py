"""Permission names and their matching, the roles' order, and what machine principals may do.

A permission is `noun:verb`, with further segments allowed (`org:members:write`). A grant matches a wanted permission
when it is equal, when it is `*:*`, or when it is a prefix of whole segments followed by `:*`. A bare `*` matches
nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

SANDBOX_PERMISSIONS: frozenset[str] = frozenset(
    {
        *("org:read", "project:read", "document:read", "document:write", "ticket:read", "ticket:write"),
        *("task:read", "task:write", "agent:read"),
    }
)
"""What the token of a sandbox may do in its own organization, as the contract's role `agent_executor`. Only operations
whose access entry admits sandboxes are open to it at all, and those narrow it to the token's own task."""

AGENT_PERMISSIONS: frozenset[str] = SANDBOX_PERMISSIONS | {"agent:write"}
"""What the token of an agent (a registered runner or worker) may do in its own organization."""

ROLE_RANK: dict[str, int] = {"viewer": 1, "member": 2, "admin": 3, "owner": 4}
"""The system roles in ascending order. A role made by an organization has no rank and satisfies only its own name."""


@lru_cache(maxsize=4096)
def grants_for(permission: str) -> tuple[str, ...]:
    """Every grant that covers `permission`: itself, `*:*`, and each of its prefixes with `:*`."""
    segments = permission.split(":")
    prefixes = [":".join(segments[: length + 1]) + ":*" for length in range(len(segments))]
    return (permission, "*:*", *prefixes)


def permission_granted(permission: str, grants: Collection[str]) -> bool:
    """Whether `grants` cover `permission`. Case-sensitive; `*` alone covers nothing."""
    if permission == "*":
        return False
    return any(grant in grants for grant in grants_for(permission))


def role_satisfies(role: str, wanted: str) -> bool:
    """Whether a member with `role` has at least the role `wanted`."""
    if role == wanted:
        return True
    have, need = ROLE_RANK.get(role), ROLE_RANK.get(wanted)
    return have is not None and need is not None and have >= need
