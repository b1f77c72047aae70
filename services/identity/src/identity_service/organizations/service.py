"""Organizations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row
from sqlalchemy.exc import IntegrityError

from identity_service import events
from identity_service.errors import (
    MEMBER_NOT_FOUND,
    ORGANIZATION_IS_ACTIVE,
    ORGANIZATION_NOT_FOUND,
    SLUG_TAKEN,
)
from identity_service.organizations import rules, store
from identity_service.organizations.schemas import (
    CreateOrganization,
    OrganizationOut,
    OrganizationSummary,
    OwnerInfo,
    TransferOwnership,
    UpdateOrganization,
)
from identity_service.organizations.standing_service import announce_all, announce_member, enter, note, readable
from identity_service.organizations.tables import Organization
from identity_service.settings import Settings
from identity_service.users import service as users
from servicekit.auth import Principal
from servicekit.db import Database, Tx
from servicekit.errors import FORBIDDEN, invalid
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
    """Use cases of `/organizations` but members, roles and invitations; what other services read of them all."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._settings = settings

    async def seed(self) -> None:
        """Makes the system roles; safe to run by every instance at every start."""
        async with self._db.uow() as tx:
            await store.seed_system_roles(tx)

    async def create(self, principal: Principal, body: CreateOrganization) -> OrganizationOut:
        """A new organization with the caller as its owner. Raises `identity.slug_taken`."""
        try:
            async with self._db.uow() as tx:
                await users.require_admitted(tx, self._settings, principal.user_id, lock=True)
                organization = await store.add_organization(
                    tx, id=new_id(), owner_id=principal.user_id, **body.model_dump()
                )
                owner = await store.system_role(tx, rules.OWNER)
                await store.add_member(
                    tx, id=new_id(), organization_id=organization.id, user_id=principal.user_id, role_id=owner.id
                )
                events.organization_created(tx, organization)
                await announce_member(tx, principal.user_id, organization, owner)
                await note(tx, "organization.created", principal, organization.id, slug=organization.slug)
                return tx.result(OrganizationOut.of(organization))
        except IntegrityError as error:
            raise SLUG_TAKEN() from error

    async def list_own(self, principal: Principal, *, archived: bool = False) -> list[OrganizationSummary]:
        """The caller's active organizations with his role in each; `archived`: those that he could restore, too."""
        async with self._db.reader() as tx:
            rows = await store.list_of_user(tx, principal.user_id, LISTED_ORGANIZATIONS, archived_as=rules.OWNER)
        if not archived or principal.scopes is not None:
            rows = [row for row in rows if row[0].is_active]
        if principal.scopes is not None:
            rows = [row for row in rows if row[0].id in principal.memberships]
        return [
            OrganizationSummary(id=row.id, name=row.name, slug=row.slug, role=role, is_active=row.is_active)
            for row, role in rows
        ]

    async def get(self, principal: Principal, organization_id: str) -> OrganizationOut:
        """One organization."""
        async with self._db.reader() as tx:
            return OrganizationOut.of(await readable(tx, principal, "org:read", organization_id))

    async def update(self, principal: Principal, organization_id: str, body: UpdateOrganization) -> OrganizationOut:
        """Changes an organization: what the body names. Raises 422 for settings that are too large."""
        changes = body.changes()
        if len(json.dumps(changes.get("settings", {}))) > rules.SETTINGS_MAX_BYTES:
            raise invalid("settings", f"must not exceed {rules.SETTINGS_MAX_BYTES} bytes as JSON")
        async with self._db.uow() as tx:
            organization = (await enter(tx, principal, "org:write", organization_id)).organization
            if changes:
                organization = await store.change_organization(tx, organization_id, **changes)
                events.organization_updated(tx, organization)
                await note(tx, "organization.updated", principal, organization_id, fields=sorted(changes))
            return OrganizationOut.of(organization)

    async def archive(self, principal: Principal, organization_id: str) -> None:
        """Closes an organization: nobody has access to it any more. Only owners may."""
        async with self._db.uow() as tx:
            await enter(tx, principal, "org:delete", organization_id)
            organization = await store.change_organization(tx, organization_id, is_active=False)
            events.organization_updated(tx, organization)
            await announce_all(tx, organization)
            await note(tx, "organization.archived", principal, organization_id)

    async def restore(self, principal: Principal, organization_id: str) -> OrganizationOut:
        """Opens an archived organization again, as it was. Only its owners and platform super admins may.

        Raises `identity.organization_is_active` (409).
        """
        async with self._db.uow() as tx:
            organization = await store.find_organization(tx, organization_id, lock=True)
            member = await store.find_member_by_user(tx, organization_id, principal.user_id)
            owner = await store.system_role(tx, rules.OWNER)
            if organization is None or (member is None and not principal.is_super_admin):
                raise ORGANIZATION_NOT_FOUND()
            if organization.is_active:
                raise ORGANIZATION_IS_ACTIVE()
            if not principal.is_super_admin and (member is None or member.role_id != owner.id):
                # To everybody but its owners an archived organization is gone.
                raise ORGANIZATION_NOT_FOUND()
            organization = await store.change_organization(tx, organization_id, is_active=True)
            events.organization_updated(tx, organization)
            await announce_all(tx, organization)
            await note(tx, "organization.restored", principal, organization_id)
            return tx.result(OrganizationOut.of(organization))

    async def transfer(self, principal: Principal, organization_id: str, body: TransferOwnership) -> OrganizationOut:
        """Makes another member the owner; the caller becomes an admin unless he stays an owner.

        Raises `identity.member_not_found` also for an agent and for an account that is suspended.
        """
        async with self._db.uow() as tx:
            standing = await enter(tx, principal, "org:delete", organization_id)
            owner = await store.system_role(tx, rules.OWNER)
            caller = standing.membership
            if not principal.is_super_admin and (caller is None or caller.role_id != owner.id):
                raise FORBIDDEN()
            heir = await store.find_member(tx, organization_id, str(body.member_id), lock=True)
            account = await users.find(tx, heir.user_id) if heir is not None and heir.user_id is not None else None
            if heir is None or account is None or not account.is_active:
                raise MEMBER_NOT_FOUND()
            organization = await store.change_organization(tx, organization_id, owner_id=account.id)
            events.organization_updated(tx, organization)
            if heir.role_id != owner.id:
                await store.change_member(tx, heir.id, owner.id)
                await announce_member(tx, account.id, organization, owner)
            if caller is not None and caller.id != heir.id and caller.role_id == owner.id and not body.stay_owner:
                admin = await store.system_role(tx, rules.ADMIN)
                await store.change_member(tx, caller.id, admin.id)
                await announce_member(tx, principal.user_id, organization, admin)
            await note(tx, "organization.transferred", principal, organization_id, member=heir.id, user_id=account.id)
            return tx.result(OrganizationOut.of(organization))

    async def owner_info(self, organization_id: str) -> OwnerInfo:
        """Who owns an organization; for platform super admins (access table)."""
        async with self._db.reader() as tx:
            organization = await store.find_organization(tx, organization_id)
            if organization is None:
                raise ORGANIZATION_NOT_FOUND()
            return OwnerInfo.of(organization, await users.find(tx, organization.owner_id))

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
