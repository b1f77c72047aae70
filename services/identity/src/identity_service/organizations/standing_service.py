"""Where a caller stands in an organization at the moment of a change, and what every change of members must keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from identity_service import events
from identity_service.audit import service as audit
from identity_service.errors import LAST_OWNER, ORGANIZATION_NOT_FOUND, ROLE_EXCEEDS_OWN, ROLE_NOT_FOUND
from identity_service.organizations import rules, store
from identity_service.organizations.tables import Membership, Organization, Role
from servicekit.auth import Principal
from servicekit.db import Tx
from servicekit.errors import FORBIDDEN


@dataclass(frozen=True, slots=True)
class Standing:
    """The caller's rights in an organization whose row the transaction has locked.

    `own`: the permissions of his role as of now, None for a platform super admin. `scopes`: what his API key is
    limited to, None without a key. `roles`: all roles that the organization may use.
    """

    organization: Organization
    membership: Membership | None
    own: frozenset[str] | None
    scopes: frozenset[str] | None
    roles: Mapping[str, rules.RoleNode]

    def require_held(self, permissions: Sequence[str]) -> None:
        """Raises `identity.role_exceeds_own` unless the caller holds every one of the permissions himself."""
        beyond = rules.excess(self.own, permissions) if self.own is not None else []
        if not beyond and self.scopes is not None:
            beyond = rules.excess(self.scopes, permissions)
        if beyond:
            raise ROLE_EXCEEDS_OWN(missing=", ".join(beyond[:10]))

    def require_role_held(self, role_id: str) -> None:
        """`require_held` for all that a role grants."""
        self.require_held(sorted(rules.effective_permissions(role_id, self.roles)))


async def readable(tx: Tx, principal: Principal, permission: str, organization_id: str) -> Organization:
    """The active organization, if the caller has the permission in it; 404 where he is no member, else 403."""
    principal.require(permission, organization_id, ORGANIZATION_NOT_FOUND)
    organization = await store.find_organization(tx, organization_id)
    if organization is None or not (organization.is_active or principal.is_super_admin):
        raise ORGANIZATION_NOT_FOUND()
    return organization


async def enter(tx: Tx, principal: Principal, permission: str | None, organization_id: str) -> Standing:
    """Locks the organization for a change and reads the caller's rights again.

    All changes of one organization's members and roles wait for each other here, so that each sees the rights that the
    one before left: a right taken away a moment ago grants nothing. `permission` None: a membership is enough.
    """
    if permission is not None:
        principal.require(permission, organization_id, ORGANIZATION_NOT_FOUND)
    elif organization_id not in principal.memberships and not principal.is_super_admin:
        raise ORGANIZATION_NOT_FOUND.refused()
    organization = await store.find_organization(tx, organization_id, lock=True)
    if organization is None or not (organization.is_active or principal.is_super_admin):
        raise ORGANIZATION_NOT_FOUND()
    roles = await store.visible_roles(tx, [organization_id])
    member = await store.find_member_by_user(tx, organization_id, principal.user_id)
    if principal.is_super_admin:
        return Standing(organization, member, None, None, roles)
    if member is None:
        raise ORGANIZATION_NOT_FOUND()
    own = rules.effective_permissions(member.role_id, roles)
    standing = Standing(organization, member, own, principal.scopes, roles)
    if permission is not None and not rules.covers(own, permission):
        raise FORBIDDEN()
    return standing


async def role_of(tx: Tx, principal: Principal, organization_id: str) -> tuple[str, frozenset[str]]:
    """(role name, permissions) of the caller as of now; a key keeps what its scopes leave of them.

    A super admin who is no member has everything, under the name `super_admin`.
    """
    await readable(tx, principal, "org:read", organization_id)
    member = await store.find_member_by_user(tx, organization_id, principal.user_id)
    role = await store.find_role(tx, organization_id, member.role_id) if member is not None else None
    if role is None and principal.is_super_admin:
        return "super_admin", frozenset({"*:*"})
    if role is None:
        raise ORGANIZATION_NOT_FOUND()
    granted = rules.effective_permissions(role.id, await store.visible_roles(tx, [organization_id]))
    if principal.scopes is None:
        return role.name, granted
    # Of a role and a scope that overlap the narrower one is what both allow.
    narrowed = {permission for permission in granted if rules.covers(principal.scopes, permission)}
    narrowed |= {scope for scope in principal.scopes if rules.covers(granted, scope)}
    return role.name, frozenset(narrowed)


async def are_colleagues(tx: Tx, user_id: str, organization_ids: Sequence[str]) -> bool:
    """Whether the user belongs to one of the organizations."""
    return await store.is_member_of_any(tx, user_id, organization_ids)


async def grantable(tx: Tx, standing: Standing, role_id: str) -> Role:
    """The role, if the caller holds all that it grants."""
    role = await store.find_role(tx, standing.organization.id, role_id)
    if role is None:
        raise ROLE_NOT_FOUND()
    standing.require_role_held(role.id)
    return role


async def keep_an_owner(tx: Tx, organization: Organization, member: Membership) -> Organization:
    """Before a member loses his role: raises `identity.last_owner` if no active owner would be left.

    Where the organization names him as its owner, the one who owns it longest takes his place. Returns the
    organization. The caller has locked its row.
    """
    owner = await store.system_role(tx, rules.OWNER)
    if member.user_id is None or member.role_id != owner.id:
        return organization
    others = await store.active_owners(tx, organization.id, owner.id, besides=member.user_id)
    if not others:
        raise LAST_OWNER()
    if organization.owner_id == member.user_id:
        organization = await store.change_organization(tx, organization.id, owner_id=others[0])
        events.organization_updated(tx, organization)
    return organization


async def announce_member(tx: Tx, user_id: str, organization: Organization, role: Role | None) -> None:
    """Emits a user's place in the organization as it now stands; without a role he is out."""
    roles = await store.visible_roles(tx, [organization.id])
    active = role is not None and organization.is_active
    events.membership_changed(
        tx,
        user_id=user_id,
        organization_id=organization.id,
        role=role.name if role is not None and active else "",
        permissions=sorted(rules.effective_permissions(role.id, roles)) if role is not None and active else (),
        active=active,
        version=await store.next_membership_version(tx, user_id, organization.id),
    )


async def announce_all(tx: Tx, organization: Organization) -> None:
    """`announce_member` for everybody, after the organization was closed or opened again."""
    roles = await store.visible_roles(tx, [organization.id])
    for user_id, role in await store.members_with_roles(tx, organization.id, roles):
        await announce_member(tx, user_id, organization, role)


async def note(tx: Tx, action: str, principal: Principal, organization_id: str, **details: Any) -> None:
    """An entry of the organization's audit trail."""
    if principal.owner_id is not None:
        details["api_key_id"] = principal.id
    await audit.record(tx, action, actor_id=principal.member_id, organization_id=organization_id, **details)
