"""Roles of an organization."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy.exc import IntegrityError

from identity_service.errors import (
    ROLE_CYCLE,
    ROLE_IN_USE,
    ROLE_IS_SYSTEM,
    ROLE_NAME_TAKEN,
    ROLE_NOT_FOUND,
    TOO_MANY_ROLES,
)
from identity_service.organizations import rules, store
from identity_service.organizations.schemas import CreateRole, RoleOut, UpdateRole
from identity_service.organizations.standing_service import Standing, announce_member, enter, note, readable
from identity_service.organizations.tables import Organization, Role
from servicekit.auth import Principal
from servicekit.db import Database, Tx
from servicekit.ids import new_id


class RoleService:
    """Use cases of `/organizations/{id}/roles`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def list(self, principal: Principal, organization_id: str, *, include_system: bool) -> Sequence[RoleOut]:
        """The organization's roles, system roles first."""
        async with self._db.reader() as tx:
            await readable(tx, principal, "org:read", organization_id)
            roles = await store.list_roles(tx, organization_id, include_system=include_system)
            return [RoleOut.of(role) for role in roles]

    async def create(self, principal: Principal, organization_id: str, body: CreateRole) -> RoleOut:
        """A new role. Raises `identity.role_name_taken`, and `.role_exceeds_own` beyond the caller's permissions."""
        try:
            async with self._db.uow() as tx:
                standing = await enter(tx, principal, "org:write", organization_id)
                if rules.is_system_name(body.name):
                    raise ROLE_NAME_TAKEN()
                if sum(node.is_own for node in standing.roles.values()) >= rules.MAX_ROLES:
                    raise TOO_MANY_ROLES()
                parent = str(body.inherits_from) if body.inherits_from is not None else None
                self._check_grant(standing, body.permissions, parent)
                role_id = new_id()
                if rules.makes_cycle(role_id, parent, standing.roles):
                    raise ROLE_CYCLE()
                role = await store.add_role(
                    tx,
                    id=role_id,
                    organization_id=organization_id,
                    name=body.name,
                    description=body.description,
                    permissions=sorted(set(body.permissions)),
                    inherits_from=parent,
                )
                await self._note(tx, "role.created", principal, role)
                return tx.result(RoleOut.of(role))
        except IntegrityError as error:
            raise ROLE_NAME_TAKEN() from error

    async def update(self, principal: Principal, organization_id: str, role_id: str, body: UpdateRole) -> RoleOut:
        """Changes a role; its members' permissions follow at once. Raises `identity.role_cycle` (409)."""
        try:
            async with self._db.uow() as tx:
                standing = await enter(tx, principal, "org:write", organization_id)
                role = await self._own_role(tx, organization_id, role_id)
                changes = body.changes()
                if changes.get("name", role.name) != role.name and rules.is_system_name(changes["name"]):
                    raise ROLE_NAME_TAKEN()
                if rules.makes_cycle(role_id, changes.get("inherits_from", role.inherits_from), standing.roles):
                    raise ROLE_CYCLE()
                # Whoever changes a role must hold what it grants before and after, else he could take from his betters.
                standing.require_role_held(role_id)
                self._check_grant(standing, changes.get("permissions", []), changes.get("inherits_from"))
                if changes:
                    role = await store.change_role(tx, role_id, **changes)
                    await self._announce(tx, standing.organization, rules.affected_roles(role_id, standing.roles))
                    await self._note(tx, "role.updated", principal, role)
                return RoleOut.of(role)
        except IntegrityError as error:
            raise ROLE_NAME_TAKEN() from error

    async def delete(self, principal: Principal, organization_id: str, role_id: str) -> None:
        """Deletes a role that nobody uses. Raises `identity.role_in_use` (409)."""
        async with self._db.uow() as tx:
            standing = await enter(tx, principal, "org:write", organization_id)
            role = await self._own_role(tx, organization_id, role_id)
            standing.require_role_held(role_id)
            if await store.role_is_used(tx, role_id):
                raise ROLE_IN_USE()
            await store.delete_role(tx, role_id)
            await self._note(tx, "role.deleted", principal, role)

    async def _own_role(self, tx: Tx, organization_id: str, role_id: str) -> Role:
        role = await store.find_role(tx, organization_id, role_id, lock=True)
        if role is None:
            raise ROLE_NOT_FOUND()
        if role.organization_id is None:
            raise ROLE_IS_SYSTEM()
        return role

    def _check_grant(self, standing: Standing, permissions: Sequence[str], parent: str | None) -> None:
        granted = set(permissions)
        if parent is not None:
            if parent not in standing.roles:
                raise ROLE_NOT_FOUND()
            granted |= rules.effective_permissions(parent, standing.roles)
        standing.require_held(sorted(granted))

    async def _announce(self, tx: Tx, organization: Organization, role_ids: Iterable[str]) -> None:
        for user_id, role in await store.members_with_roles(tx, organization.id, role_ids):
            await announce_member(tx, user_id, organization, role)

    async def _note(self, tx: Tx, action: str, principal: Principal, role: Role) -> None:
        await note(
            tx,
            action,
            principal,
            role.organization_id or "",
            role_id=role.id,
            name=role.name,
            permissions=role.permissions,
            inherits_from=role.inherits_from,
        )
