"""The own profile, and colleagues."""

from __future__ import annotations

from typing import Any

from identity_service.auth.rules import merged_attributes
from identity_service.auth.schemas import UserOut
from identity_service.directory import rules, store
from identity_service.directory.schemas import (
    ColleagueOut,
    LimitsOut,
    OwnOrganizationsOut,
    PermissionsOut,
    Preferences,
    UpdateProfile,
)
from identity_service.directory.tables import Avatar
from identity_service.errors import AVATAR_NOT_FOUND, USER_NOT_FOUND
from identity_service.organizations import standing_service as organizations
from identity_service.organizations.service import OrganizationService
from identity_service.settings import Settings
from identity_service.users import service as users
from identity_service.users.tables import User
from servicekit.auth import Principal
from servicekit.clock import utc_now
from servicekit.db import Database, Tx
from servicekit.errors import FORBIDDEN, invalid

FREE_PLAN = "free"


class ProfileService:
    """Use cases of `/users/me` and `/users/{id}` as people use them."""

    def __init__(self, db: Database, settings: Settings, own_organizations: OrganizationService) -> None:
        self._db = db
        self._settings = settings
        self._organizations = own_organizations

    async def get(self, principal: Principal) -> UserOut:
        """The own account."""
        async with self._db.reader() as tx:
            return UserOut.of(await self._own(tx, principal))

    async def update(self, principal: Principal, body: UpdateProfile) -> UserOut:
        """Changes what the body names. Attributes of providers are refused with 422."""
        changes: dict[str, Any] = body.model_dump(exclude_unset=True)
        async with self._db.uow() as tx:
            user = await self._own(tx, principal, lock=True)
            if "attributes" in changes:
                changes["attributes"] = merged_attributes(user.attributes, changes["attributes"] or {})
            if "avatar_url" in changes:
                await store.remove_avatar(tx, user.id)
            if changes:
                user = await users.change(tx, user.id, **changes)
            return UserOut.of(user)

    async def preferences(self, principal: Principal) -> Preferences:
        """How the user wants to see the product."""
        async with self._db.reader() as tx:
            return Preferences.of(await self._own(tx, principal))

    async def set_preferences(self, principal: Principal, body: Preferences) -> Preferences:
        """Sets what the body names; null forgets it."""
        changes = body.model_dump(exclude_unset=True)
        async with self._db.uow() as tx:
            user = await self._own(tx, principal, lock=True)
            if changes:
                user = await users.change(tx, user.id, attributes=merged_attributes(user.attributes, changes))
            return Preferences.of(user)

    async def set_avatar(self, principal: Principal, content: bytes) -> UserOut:
        """Keeps an uploaded picture and names its address as the user's. Raises 422 for what is no picture."""
        content_type = rules.picture_type(content)
        if content_type is None:
            raise invalid("body", "must be a PNG, JPEG, GIF or WebP picture")
        digest = rules.digest_of(content)
        async with self._db.uow() as tx:
            user = await self._own(tx, principal, lock=True)
            await store.set_avatar(tx, user.id, content_type=content_type, content=content, digest=digest)
            url = f"{self._settings.public_url}/api/v1/users/{user.id}/avatar/{digest}"
            return UserOut.of(await users.change(tx, user.id, avatar_url=url))

    async def remove_avatar(self, principal: Principal) -> UserOut:
        """The user has no picture any more."""
        async with self._db.uow() as tx:
            user = await self._own(tx, principal, lock=True)
            await store.remove_avatar(tx, user.id)
            return UserOut.of(await users.change(tx, user.id, avatar_url=None))

    async def avatar(self, user_id: str, digest: str) -> Avatar:
        """The picture at an address. Raises `identity.avatar_not_found`."""
        async with self._db.reader() as tx:
            avatar = await store.find_avatar(tx, user_id, digest)
        if avatar is None:
            raise AVATAR_NOT_FOUND()
        return avatar

    async def organizations(self, principal: Principal) -> OwnOrganizationsOut:
        """The caller and his active organizations."""
        user = await self.get(principal)
        own = await self._organizations.list_own(principal)
        return OwnOrganizationsOut(id=user.id, email=user.email, full_name=user.full_name, organizations=own)

    async def permissions(self, principal: Principal, organization_id: str) -> PermissionsOut:
        """What the caller may do there as of now; a key shows what its scopes leave of it."""
        async with self._db.reader() as tx:
            role, granted = await organizations.role_of(tx, principal, organization_id)
        return PermissionsOut(organization_id=organization_id, role=role, permissions=sorted(granted))

    async def limits(self, principal: Principal, organization_id: str) -> LimitsOut:
        """What the organization may use, and has used in this month."""
        now = utc_now()
        async with self._db.reader() as tx:
            organization = await organizations.readable(tx, principal, "org:read", organization_id)
            plan = await store.plan_of(tx, organization_id)
        return LimitsOut(
            organization_id=organization.id,
            plan=plan.tier if plan is not None else FREE_PLAN,
            max_concurrent_agents=organization.max_concurrent_agents,
            max_agent_runtime_hours=organization.max_agent_runtime_hours,
            max_task_duration_minutes=rules.MAX_TASK_DURATION_MINUTES,
            monthly_agent_hours_limit=organization.max_agent_runtime_hours,
            monthly_agent_hours_used=rules.hours_used(
                plan.sandbox_ms_used if plan is not None else 0, plan.period_ends_at if plan is not None else None, now
            ),
            billing_cycle_resets_at=rules.resets_at(plan.period_ends_at if plan is not None else None, now),
        )

    async def find(self, principal: Principal, user_id: str) -> UserOut | ColleagueOut:
        """Oneself or, for a super admin, anybody in full; a colleague in short; anybody else is not there."""
        async with self._db.reader() as tx:
            user = await users.find(tx, user_id)
            if user is None:
                raise USER_NOT_FOUND()
            if principal.is_super_admin or user.id == principal.user_id:
                return UserOut.of(user)
            readable = principal.organizations_with("org:read")
            if principal.scopes is not None and not readable:
                # A key that may not read organizations reads nobody in them.
                raise FORBIDDEN.refused()
            if not await organizations.are_colleagues(tx, user.id, readable):
                raise USER_NOT_FOUND.refused()
            return ColleagueOut.of(user)

    async def _own(self, tx: Tx, principal: Principal, *, lock: bool = False) -> User:
        user = await users.find(tx, principal.user_id, lock=lock)
        if user is None:
            raise USER_NOT_FOUND()
        return user
