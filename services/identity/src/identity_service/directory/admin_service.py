"""Accounts as platform super admins see and change them."""

from __future__ import annotations

from typing import Any

from identity_service.audit import service as audit
from identity_service.auth.schemas import UserOut
from identity_service.directory.schemas import UpdateUser, UserPage
from identity_service.errors import NOT_ON_YOURSELF, USER_NOT_FOUND
from identity_service.tokens.service import TokenService
from identity_service.users import service as users
from identity_service.users.rules import UserFilters as UserFilters
from identity_service.users.tables import User
from servicekit.auth import Principal
from servicekit.db import Database, Tx
from servicekit.errors import FORBIDDEN
from servicekit.http.paging import KeysetParams, next_token


class UserAdminService:
    """Use cases of `/users` and `/users/{id}` for super admins (access table)."""

    def __init__(self, db: Database, tokens: TokenService) -> None:
        self._db = db
        self._tokens = tokens

    async def page(self, filters: UserFilters, page: KeysetParams) -> UserPage:
        """Accounts, newest first."""
        after = page.expect(str)
        async with self._db.reader() as tx:
            rows = await users.page(tx, filters, before=after[0] if after is not None else None, limit=page.fetch)
        items, token = next_token(list(rows), page, lambda row: (row.id,))
        return UserPage(items=[UserOut.of(row) for row in items], next_page_token=token)

    async def update(self, principal: Principal, user_id: str, body: UpdateUser, address: str) -> UserOut:
        """Suspends, lets in, or makes a super admin. A suspension and a change of rights end all sessions everywhere.

        Raises `identity.not_on_yourself` (409) for one's own `is_active` and `is_super_admin`.
        """
        wanted = body.model_dump(exclude_none=True)
        if user_id == principal.user_id and wanted.keys() & {"is_active", "is_super_admin"}:
            raise NOT_ON_YOURSELF()
        async with self._db.uow() as tx:
            user = await self._locked(tx, principal, user_id)
            changes = {name: value for name, value in wanted.items() if getattr(user, name) != value}
            if not changes:
                return UserOut.of(user)
            user = await users.change(tx, user_id, **changes)
            if changes.get("is_active") is False or "is_super_admin" in changes:
                # The mark of a super admin stands in the tokens: those with the old one must not live on.
                await self._tokens.end_sessions(tx, user_id, "administration")
                await self._tokens.revoke(tx, "user", user_id, "administration")
            for name, value in changes.items():
                await self._note(tx, principal, user_id, name, value, address)
            return UserOut.of(user)

    async def _locked(self, tx: Tx, principal: Principal, user_id: str) -> User:
        """The account, locked together with the caller's own, who must still be a super admin.

        Both in the order of their ids: of two super admins who depose each other one comes too late.
        """
        found: dict[str, User | None] = {}
        for id_ in sorted({principal.user_id, user_id}):
            found[id_] = await users.find(tx, id_, lock=True)
        caller, user = found[principal.user_id], found[user_id]
        if caller is None or not caller.is_active or not caller.is_super_admin:
            raise FORBIDDEN()
        if user is None:
            raise USER_NOT_FOUND()
        return user

    async def _note(self, tx: Tx, principal: Principal, user_id: str, name: str, value: Any, address: str) -> None:
        actions = {
            "is_active": "user.reactivated" if value else "user.suspended",
            "is_super_admin": "user.super_admin_granted" if value else "user.super_admin_revoked",
            "is_verified": "user.verification_set",
            "waitlist_status": "user.waitlist_set",
        }
        await audit.record(
            tx, actions[name], actor_id=principal.user_id, subject_id=user_id, address=address, value=value
        )
