"""Organizations and their members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row
from sqlalchemy.exc import IntegrityError

from identity_service import events
from identity_service.audit import service as audit
from identity_service.errors import (
    ALREADY_MEMBER,
    LAST_OWNER,
    MEMBER_NOT_FOUND,
    ORGANIZATION_NOT_FOUND,
    ROLE_EXCEEDS_OWN,
    ROLE_NOT_FOUND,
    SLUG_TAKEN,
    USER_NOT_FOUND,
)
from identity_service.organizations import rules, store
from identity_service.organizations.schemas import (
    AddMember,
    CreateOrganization,
    MembershipOut,
    OrganizationOut,
    OrganizationSummary,
    OwnerInfo,
    UpdateOrganization,
)
from identity_service.organizations.tables import Organization, Role
from identity_service.users import service as users
from servicekit.auth import Principal
from servicekit.db import Database, Tx
from servicekit.ids import new_id

LISTED_ORGANIZATIONS = 1000


@dataclass(frozen=True, slots=True)
class MembershipFact:
    """A user's place in an organization, as other services replicate it."""

    user_id: str
    organization_id: str
    role: str
    permissions: frozenset[str]
    active: bool
    version: int


class OrganizationService:
    """Use cases of `/organizations` but roles."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def seed(self) -> None:
        """Makes the system roles; safe to run by every instance at every start."""
        async with self._db.uow() as tx:
            await store.seed_system_roles(tx)

    async def create(self, principal: Principal, body: CreateOrganization) -> OrganizationOut:
        """A new organization with the caller as its owner. Raises `identity.slug_taken`."""
        try:
            async with self._db.uow() as tx:
                if await users.find(tx, principal.user_id) is None:
                    raise USER_NOT_FOUND()
                organization = await store.add_organization(
                    tx, id=new_id(), owner_id=principal.user_id, **body.model_dump()
                )
                owner = await store.system_role(tx, rules.OWNER)
                await store.add_member(
                    tx, id=new_id(), organization_id=organization.id, user_id=principal.user_id, role_id=owner.id
                )
                events.organization_created(tx, organization)
                await announce_member(tx, principal.user_id, organization, owner)
                await _audit(tx, "organization.created", principal, organization.id, slug=organization.slug)
                return tx.result(OrganizationOut.of(organization))
        except IntegrityError as error:
            raise SLUG_TAKEN() from error

    async def list_own(self, principal: Principal) -> list[OrganizationSummary]:
        """The caller's active organizations with his role in each."""
        async with self._db.reader() as tx:
            rows = await store.list_of_user(tx, principal.user_id, LISTED_ORGANIZATIONS)
        if principal.scopes is not None:
            rows = [row for row in rows if row[0].id in principal.memberships]
        return [
            OrganizationSummary(id=row.id, name=row.name, slug=row.slug, role=role, is_active=row.is_active)
            for row, role in rows
        ]

    async def get(self, principal: Principal, organization_id: str) -> OrganizationOut:
        """One organization."""
        async with self._db.reader() as tx:
            return OrganizationOut.of(await require(tx, principal, "org:read", organization_id))

    async def update(self, principal: Principal, organization_id: str, body: UpdateOrganization) -> OrganizationOut:
        """Changes an organization."""
        async with self._db.uow() as tx:
            organization = await require(tx, principal, "org:write", organization_id, lock=True)
            changes = body.model_dump(exclude_none=True)
            if changes:
                organization = await store.change_organization(tx, organization_id, **changes)
                events.organization_updated(tx, organization)
                await _audit(tx, "organization.updated", principal, organization_id, fields=sorted(changes))
            return OrganizationOut.of(organization)

    async def archive(self, principal: Principal, organization_id: str) -> None:
        """Closes an organization: nobody has access to it any more. Only owners may."""
        async with self._db.uow() as tx:
            await require(tx, principal, "org:delete", organization_id, lock=True)
            organization = await store.change_organization(tx, organization_id, is_active=False)
            events.organization_updated(tx, organization)
            roles = await store.visible_roles(tx, [organization_id])
            for user_id, role in await store.members_with_roles(tx, organization_id, roles):
                await announce_member(tx, user_id, organization, role)
            await _audit(tx, "organization.archived", principal, organization_id)

    async def owner_info(self, organization_id: str) -> OwnerInfo:
        """Who owns an organization; for platform super admins (access table)."""
        async with self._db.reader() as tx:
            organization = await store.find_organization(tx, organization_id)
            if organization is None:
                raise ORGANIZATION_NOT_FOUND()
            return OwnerInfo.of(organization, await users.find(tx, organization.owner_id))

    async def add_member(self, principal: Principal, organization_id: str, body: AddMember) -> MembershipOut:
        """Adds a user or an agent. Raises `identity.role_not_found`, `.already_member`, `.role_exceeds_own`."""
        try:
            async with self._db.uow() as tx:
                organization = await require(tx, principal, "org:members:write", organization_id, lock=True)
                role = await self._grantable(tx, principal, organization_id, str(body.role_id))
                user_id = str(body.user_id) if body.user_id is not None else None
                if user_id is not None and await users.find(tx, user_id) is None:
                    raise USER_NOT_FOUND()
                member = await store.add_member(
                    tx,
                    id=new_id(),
                    organization_id=organization_id,
                    user_id=user_id,
                    agent_id=body.agent_id,
                    role_id=role.id,
                    invited_by=principal.user_id,
                )
                if user_id is not None:
                    await announce_member(tx, user_id, organization, role)
                await _audit(tx, "member.added", principal, organization_id, member=member.id, role=role.name)
                return tx.result(MembershipOut.of(member, role))
        except IntegrityError as error:
            raise ALREADY_MEMBER() from error

    async def list_members(
        self, principal: Principal, organization_id: str, limit: int, offset: int
    ) -> list[MembershipOut]:
        """The members in the order of joining."""
        async with self._db.reader() as tx:
            await require(tx, principal, "org:members:read", organization_id)
            rows = await store.list_members(tx, organization_id, limit, offset)
            return [MembershipOut.of(member, role) for member, role in rows]

    async def change_member(
        self, principal: Principal, organization_id: str, member_id: str, role_id: str
    ) -> MembershipOut:
        """Gives a member another role. Raises `identity.last_owner` when nobody would own the organization."""
        async with self._db.uow() as tx:
            organization = await require(tx, principal, "org:members:write", organization_id, lock=True)
            member = await store.find_member(tx, organization_id, member_id, lock=True)
            if member is None:
                raise MEMBER_NOT_FOUND()
            await self._grantable(tx, principal, organization_id, member.role_id)
            role = await self._grantable(tx, principal, organization_id, role_id)
            if role.id != member.role_id:
                await self._keep_an_owner(tx, organization_id, member.role_id)
                member = await store.change_member(tx, member_id, role.id)
                if member.user_id is not None:
                    await announce_member(tx, member.user_id, organization, role)
                await _audit(tx, "member.role_changed", principal, organization_id, member=member_id, role=role.name)
            return MembershipOut.of(member, role)

    async def remove_member(self, principal: Principal, organization_id: str, member_id: str) -> None:
        """Removes a member, or leaves: a member may always remove himself. Raises `identity.last_owner`."""
        async with self._db.uow() as tx:
            organization = await require(tx, principal, "org:read", organization_id, lock=True)
            member = await store.find_member(tx, organization_id, member_id, lock=True)
            if member is None or member.user_id != principal.member_id:
                principal.require("org:members:delete", organization_id, ORGANIZATION_NOT_FOUND)
            if member is None:
                raise MEMBER_NOT_FOUND()
            if member.user_id != principal.member_id:
                await self._grantable(tx, principal, organization_id, member.role_id)
            await self._keep_an_owner(tx, organization_id, member.role_id)
            await store.delete_member(tx, member_id)
            if member.user_id is not None:
                await announce_member(tx, member.user_id, organization, None)
            await _audit(tx, "member.removed", principal, organization_id, member=member_id, user_id=member.user_id)

    async def memberships_of(self, user_ids: Sequence[str]) -> list[MembershipFact]:
        """All memberships of the users as of now, removed ones as inactive."""
        async with self._db.reader() as tx:
            return await _facts(tx, await store.memberships_of(tx, user_ids))

    async def page_memberships(self, after: store.Page, limit: int) -> list[MembershipFact]:
        """A page of all memberships by (user, organization)."""
        async with self._db.reader() as tx:
            return await _facts(tx, await store.page_memberships(tx, after, limit))

    async def organizations_by_id(self, ids: Sequence[str]) -> list[Organization]:
        """The organizations that exist among `ids`."""
        async with self._db.reader() as tx:
            return list(await store.find_organizations(tx, ids))

    async def page_organizations(self, after: str, limit: int) -> list[Organization]:
        """A page of all organizations by id."""
        async with self._db.reader() as tx:
            return list(await store.page_organizations(tx, after, limit))

    async def _grantable(self, tx: Tx, principal: Principal, organization_id: str, role_id: str) -> Role:
        """The role, if the caller holds all that it grants."""
        role = await store.find_role(tx, organization_id, role_id)
        if role is None:
            raise ROLE_NOT_FOUND()
        roles = await store.visible_roles(tx, [organization_id])
        require_held(principal, organization_id, sorted(rules.effective_permissions(role.id, roles)))
        return role

    async def _keep_an_owner(self, tx: Tx, organization_id: str, role_id: str) -> None:
        owner = await store.system_role(tx, rules.OWNER)
        if role_id == owner.id and await store.count_owners(tx, organization_id, owner.id) <= 1:
            raise LAST_OWNER()


async def require(
    tx: Tx, principal: Principal, permission: str, organization_id: str, *, lock: bool = False
) -> Organization:
    """The active organization, if the caller has the permission in it; 404 where he is no member, else 403."""
    principal.require(permission, organization_id, ORGANIZATION_NOT_FOUND)
    organization = await store.find_organization(tx, organization_id, lock=lock)
    if organization is None or not (organization.is_active or principal.is_super_admin):
        raise ORGANIZATION_NOT_FOUND()
    return organization


def require_held(principal: Principal, organization_id: str, permissions: Sequence[str]) -> None:
    """Raises `identity.role_exceeds_own` unless the caller holds every one of the permissions himself."""
    if principal.is_super_admin:
        return
    own = principal.memberships[organization_id].permissions
    beyond = rules.excess(own, permissions)
    if beyond:
        raise ROLE_EXCEEDS_OWN(missing=", ".join(beyond[:10]))


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


async def _facts(tx: Tx, rows: Sequence[Row[Any]]) -> list[MembershipFact]:
    roles = await store.visible_roles(tx, {row.organization_id for row in rows})
    return [
        MembershipFact(
            user_id=row.user_id,
            organization_id=row.organization_id,
            role=row.role_name or "",
            permissions=rules.effective_permissions(row.role_id, roles) if row.active else frozenset(),
            active=row.active,
            version=row.version,
        )
        for row in rows
    ]


async def _audit(tx: Tx, action: str, principal: Principal, organization_id: str, **details: Any) -> None:
    await audit.record(tx, action, actor_id=principal.member_id, organization_id=organization_id, **details)
