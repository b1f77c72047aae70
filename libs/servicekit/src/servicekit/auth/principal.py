"""Who asks, and what they may do in which organization.

A principal is built per request from a verified credential and the memberships known then, so that every decision
inside a transaction is a lookup in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from servicekit.auth.permissions import AGENT_PERMISSIONS, SANDBOX_PERMISSIONS, permission_granted, role_satisfies
from servicekit.errors import FORBIDDEN, AccessRefused, AppError, ErrorSpec


class PrincipalType(StrEnum):
    """The `pt` claim of a token, and the type of an API key's bearer."""

    USER = "user"
    API_KEY = "api_key"
    AGENT = "agent"
    SANDBOX = "sandbox"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Membership:
    """A principal's place in one organization. `permissions` are those of the role, patterns allowed (`task:*`)."""

    organization_id: str
    role: str
    permissions: frozenset[str]
    version: int = 0


Memberships = Mapping[str, Membership]
"""Organization id → membership; active ones only."""

NO_MEMBERSHIPS: Memberships = MappingProxyType({})
NO_CLAIMS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Principal:
    """An authenticated caller.

    `id`: user, API key, agent or sandbox id, or a service's name. `expires_at`: Unix seconds, None where the credential
    does not expire. `scopes`: what an API key is limited to, None without a limit. `owner_id`: the user an API key acts
    for. `claims`: the token's own (agent: `org`, `agent`; sandbox: `org`, `agent`, `task`, `sandbox`, `attempt`).
    """

    type: PrincipalType
    id: str
    session_id: str | None = None
    is_super_admin: bool = False
    token_id: str | None = None
    expires_at: float | None = None
    issued_at: float | None = None
    claims: Mapping[str, Any] = field(default_factory=lambda: NO_CLAIMS)
    memberships: Memberships = field(default_factory=lambda: NO_MEMBERSHIPS)
    scopes: frozenset[str] | None = None
    owner_id: str | None = None

    @property
    def subject(self) -> str:
        """`user:<id>`, `sandbox:<id>` …: the originating subject on RPCs and events. An API key's is its user."""
        if self.owner_id is not None:
            return f"user:{self.owner_id}"
        return f"{self.type.value}:{self.id}"

    @property
    def member_id(self) -> str | None:
        """The user whose memberships count: the user, or the one an API key acts for. None for machine principals."""
        if self.type is PrincipalType.USER:
            return self.id
        return self.owner_id

    @property
    def user_id(self) -> str:
        """The user's id, also behind an API key. Raises `auth.forbidden` (403) for agents, sandboxes and services."""
        member = self.member_id
        if member is None:
            raise FORBIDDEN()
        return member

    @property
    def organization_id(self) -> str | None:
        """The one organization of an agent's or sandbox's token, else None."""
        organization = self.claims.get("org")
        return organization if isinstance(organization, str) else None

    def can(self, permission: str, organization_id: str | None) -> bool:
        """Whether the principal has `permission` in the organization. A platform super admin has every one."""
        if self.is_super_admin:
            return True
        membership = self.memberships.get(organization_id) if organization_id is not None else None
        if membership is None or not permission_granted(permission, membership.permissions):
            return False
        return self.scopes is None or permission_granted(permission, self.scopes)

    def require(
        self, permission: str, organization_id: str | None, missing: ErrorSpec | AppError | None = None
    ) -> None:
        """Refuse unless `can(permission, organization_id)`.

        Without a membership there it raises `missing` (a 404, so that foreign rows look absent; `auth.forbidden` when
        not given); with a membership that lacks the permission it raises `auth.forbidden` (403). Both are
        `AccessRefused`, which the HTTP edge answers only after it has refreshed the memberships once and run the
        endpoint again.
        """
        if self.can(permission, organization_id):
            return
        if missing is None or (organization_id is not None and organization_id in self.memberships):
            raise FORBIDDEN.refused()
        if isinstance(missing, ErrorSpec):
            raise missing.refused()
        raise AccessRefused(missing.code, missing.detail, missing.kind, meta=missing.meta)

    def require_role(self, role: str, organization_id: str, missing: ErrorSpec) -> None:
        """Refuse unless the principal has at least `role` in the organization; errors as for `require`."""
        if self.is_super_admin:
            return
        membership = self.memberships.get(organization_id)
        if membership is None:
            raise missing.refused()
        if not role_satisfies(membership.role, role):
            raise FORBIDDEN.refused()

    def require_super_admin(self) -> None:
        """Refuse everyone but a platform super admin with `auth.forbidden` (403)."""
        if not self.is_super_admin:
            raise FORBIDDEN()

    def organizations_with(self, permission: str) -> list[str]:
        """The organizations where the principal has `permission` by membership, for the WHERE of a list.

        A super admin gets only those of own memberships: a list over all tenants is a use case of its own.
        """
        if self.scopes is not None and not permission_granted(permission, self.scopes):
            return []
        return [
            organization_id
            for organization_id, membership in self.memberships.items()
            if permission_granted(permission, membership.permissions)
        ]

    def require_organizations_with(self, permission: str) -> list[str]:
        """`organizations_with`, for a change of all that the principal may change; 403 where that is nothing."""
        found = self.organizations_with(permission)
        if not found:
            raise FORBIDDEN.refused()
        return found


def machine_memberships(type_: PrincipalType, claims: Mapping[str, Any]) -> Memberships:
    """The one membership that an agent's or sandbox's token carries itself."""
    organization_id = claims.get("org")
    if not isinstance(organization_id, str):
        return NO_MEMBERSHIPS
    if type_ is PrincipalType.AGENT:
        return {organization_id: Membership(organization_id, "agent", AGENT_PERMISSIONS)}
    if type_ is PrincipalType.SANDBOX:
        return {organization_id: Membership(organization_id, "sandbox", SANDBOX_PERMISSIONS)}
    return NO_MEMBERSHIPS
