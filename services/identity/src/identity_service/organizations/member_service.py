"""Members of an organization."""

from __future__ import annotations

from sqlalchemy.exc import IntegrityError

from identity_service.errors import ALREADY_MEMBER, MEMBER_NOT_FOUND, USER_NOT_FOUND
from identity_service.organizations import rules, store
from identity_service.organizations.schemas import AddMember, MembershipOut
from identity_service.organizations.standing_service import (
    Standing,
    announce_member,
    enter,
    grantable,
    keep_an_owner,
    note,
    readable,
)
from identity_service.organizations.tables import Membership
from identity_service.users import service as users
from servicekit.auth import Principal
from servicekit.db import Database, Tx
from servicekit.errors import FORBIDDEN
from servicekit.ids import new_id


class MemberService:
    """Use cases of `/organizations/{id}/members`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def add(self, principal: Principal, organization_id: str, body: AddMember) -> MembershipOut:
        """Adds a user or an agent. Raises `identity.role_not_found`, `.already_member`, `.role_exceeds_own`."""
        try:
            async with self._db.uow() as tx:
                standing = await enter(tx, principal, "org:members:write", organization_id)
                role = await grantable(tx, standing, str(body.role_id))
                user_id = str(body.user_id) if body.user_id is not None else None
                # Locked after the organization, as his erasure does it: he is a member before it, or not at all.
                account = await users.find(tx, user_id, lock=True) if user_id is not None else None
                if user_id is not None and account is None:
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
                    await announce_member(tx, user_id, standing.organization, role)
                await note(
                    tx, "member.added", principal, organization_id, member=member.id, user_id=user_id, role=role.name
                )
                return tx.result(MembershipOut.of(member, role, account))
        except IntegrityError as error:
            raise ALREADY_MEMBER() from error

    async def list(self, principal: Principal, organization_id: str, limit: int, offset: int) -> list[MembershipOut]:
        """The members in the order of joining."""
        async with self._db.reader() as tx:
            await readable(tx, principal, "org:members:read", organization_id)
            rows = await store.list_members(tx, organization_id, limit, offset)
            return [MembershipOut.of(member, role, user) for member, role, user in rows]

    async def change(self, principal: Principal, organization_id: str, member_id: str, role_id: str) -> MembershipOut:
        """Gives a member another role. Raises `identity.last_owner` when nobody would own the organization."""
        async with self._db.uow() as tx:
            standing = await enter(tx, principal, "org:members:write", organization_id)
            member = await store.find_member(tx, organization_id, member_id, lock=True)
            if member is None:
                raise MEMBER_NOT_FOUND()
            standing.require_role_held(member.role_id)
            role = await grantable(tx, standing, role_id)
            if role.id != member.role_id:
                organization = await keep_an_owner(tx, standing.organization, member)
                before = member.role_id
                member = await store.change_member(tx, member_id, role.id)
                if member.user_id is not None:
                    await announce_member(tx, member.user_id, organization, role)
                await note(
                    tx,
                    "member.role_changed",
                    principal,
                    organization_id,
                    member=member_id,
                    user_id=member.user_id,
                    role=role.name,
                    role_id_before=before,
                )
            account = await users.find(tx, member.user_id) if member.user_id is not None else None
            return MembershipOut.of(member, role, account)

    async def remove(self, principal: Principal, organization_id: str, member_id: str) -> None:
        """Removes a member, or leaves: a member may always remove himself. Raises `identity.last_owner`."""
        async with self._db.uow() as tx:
            standing = await enter(tx, principal, None, organization_id)
            member = await store.find_member(tx, organization_id, member_id, lock=True)
            if member is None or member.user_id != principal.user_id or principal.scopes is not None:
                # A key cannot leave for its user unless it may remove members.
                principal.require("org:members:delete", organization_id)
                if standing.own is not None and not rules.covers(standing.own, "org:members:delete"):
                    raise FORBIDDEN()
            if member is None:
                raise MEMBER_NOT_FOUND()
            if member.user_id != principal.user_id:
                standing.require_role_held(member.role_id)
            await self._out(tx, principal, standing, member)

    async def leave(self, principal: Principal, organization_id: str) -> None:
        """Ends the own membership. Raises `identity.last_owner`, `identity.member_not_found`."""
        async with self._db.uow() as tx:
            standing = await enter(tx, principal, None, organization_id)
            if standing.membership is None:
                raise MEMBER_NOT_FOUND()
            await self._out(tx, principal, standing, standing.membership)

    async def _out(self, tx: Tx, principal: Principal, standing: Standing, member: Membership) -> None:
        organization = await keep_an_owner(tx, standing.organization, member)
        await store.delete_member(tx, member.id)
        if member.user_id is not None:
            await announce_member(tx, member.user_id, organization, None)
        action = "member.left" if member.user_id == principal.user_id else "member.removed"
        await note(tx, action, principal, organization.id, member=member.id, user_id=member.user_id)
