"""Pure rules of roles."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

OWNER = "owner"
ADMIN = "admin"
MEMBER = "member"
VIEWER = "viewer"

# A role may inherit through at most so many others; deeper chains nobody can survey.
MAX_DEPTH = 10
MAX_ROLES = 100
SETTINGS_MAX_BYTES = 65_536
INVITATION_DAYS = 7
MAX_PENDING_INVITATIONS = 500
# Mails of one invitation: whoever did not react to ten does not want an eleventh.
MAX_SENT = 10

PERMISSION = re.compile(r"^(\*:\*|[a-z_]+(:[a-z_]+)*:([a-z_]+|\*))$")

_NOUNS = ("project", "document", "ticket", "task")


def _each(verb: str) -> list[str]:
    return [f"{noun}:{verb}" for noun in _NOUNS]


SYSTEM_ROLES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    OWNER: (
        "Everything in the organization",
        ("org:*", *_each("*"), "agent:*", "billing:*", "monitor:*"),
    ),
    ADMIN: (
        "Everything but giving the organization away, closing it, or paying",
        (
            "org:read",
            "org:write",
            "org:members:*",
            "org:audit:read",
            *_each("*"),
            "agent:*",
            "billing:read",
            "monitor:*",
        ),
    ),
    MEMBER: (
        "Works on projects, specs, tickets and tasks",
        ("org:read", *_each("read"), *_each("write"), "agent:read", "billing:read", "monitor:read"),
    ),
    VIEWER: ("Reads", ("org:read", *_each("read"), "agent:read", "billing:read", "monitor:read")),
    "agent_executor": (
        "What an agent that is a member may do",
        (
            "project:read",
            *(f"{noun}:{verb}" for noun in _NOUNS[1:] for verb in ("read", "write")),
            "task:complete:execute",
            "project:git:write",
        ),
    ),
}
"""Name → (description, permissions) of the roles that every organization has."""


def is_system_name(name: str) -> bool:
    """Whether a role of this name would pass for a system role: services know a member's role by its name alone."""
    return name.casefold() in SYSTEM_ROLES


@dataclass(frozen=True, slots=True)
class RoleNode:
    """A role as the inheritance sees it."""

    id: str
    permissions: tuple[str, ...]
    inherits_from: str | None
    is_own: bool = False
    """Whether it belongs to the organization; else it is a system role."""


def effective_permissions(role_id: str, roles: Mapping[str, RoleNode]) -> frozenset[str]:
    """The role's own permissions and those of all it inherits from; a cycle or a missing parent ends the walk."""
    granted: set[str] = set()
    seen: set[str] = set()
    current: str | None = role_id
    while current is not None and current not in seen and len(seen) <= MAX_DEPTH:
        seen.add(current)
        node = roles.get(current)
        if node is None:
            break
        granted.update(node.permissions)
        current = node.inherits_from
    return frozenset(granted)


def makes_cycle(role_id: str, inherits_from: str | None, roles: Mapping[str, RoleNode]) -> bool:
    """Whether `role_id` would inherit from itself, or any role through more than `MAX_DEPTH` others."""
    above = 0
    current = inherits_from
    while current is not None:
        if current == role_id or above >= MAX_DEPTH:
            return True
        above += 1
        node = roles.get(current)
        current = node.inherits_from if node is not None else None
    return above + _height(role_id, roles) > MAX_DEPTH


def _height(role_id: str, roles: Mapping[str, RoleNode]) -> int:
    """How many steps the farthest heir of a role is away."""
    height, level = 0, {role_id}
    seen = {role_id}
    while level := {node.id for node in roles.values() if node.inherits_from in level} - seen:
        seen |= level
        height += 1
    return height


def affected_roles(role_id: str, roles: Mapping[str, RoleNode]) -> set[str]:
    """The role and every role that inherits from it, however far away."""
    affected = {role_id}
    grew = True
    while grew:
        more = {node.id for node in roles.values() if node.inherits_from in affected and node.id not in affected}
        affected |= more
        grew = bool(more)
    return affected


def covers(own: Collection[str], wanted: str) -> bool:
    """Whether someone with the permissions `own` holds `wanted`, which may be a pattern, in full."""
    segments = wanted.removesuffix(":*").split(":")
    patterns = {":".join(segments[: length + 1]) + ":*" for length in range(len(segments))}
    return "*:*" in own or wanted in own or not patterns.isdisjoint(own)


def excess(own: Collection[str], wanted: Sequence[str]) -> list[str]:
    """The permissions among `wanted` that someone with `own` does not hold himself."""
    return sorted({permission for permission in wanted if not covers(own, permission)})


def invitation_state(state: str, expires_at: datetime, now: datetime) -> str:
    """The state as people see it: a pending invitation whose time has passed is `expired`."""
    return "expired" if state == "pending" and expires_at <= now else state
