"""Signing in and out, the sessions, the own profile."""

from __future__ import annotations

from typing import Any

from identity_service.audit import service as audit
from identity_service.auth import rules
from identity_service.auth.adapters import LoginGuard, Passwords
from identity_service.auth.schemas import (
    Login,
    SessionOut,
    TokenOut,
    UpdateMe,
    UserOut,
)
from identity_service.errors import (
    BAD_CREDENTIALS,
    SESSION_NOT_FOUND,
    USER_NOT_FOUND,
    WRONG_PASSWORD,
)
from identity_service.tokens.service import TokenPair, TokenService
from identity_service.users import service as users
from identity_service.users.tables import User
from servicekit.auth import Principal
from servicekit.db import Database, Tx

_CHALLENGE = {"WWW-Authenticate": "Bearer"}


class AuthService:
    """Use cases of `/auth`."""

    def __init__(self, db: Database, tokens: TokenService, passwords: Passwords, guard: LoginGuard) -> None:
        self._db = db
        self._tokens = tokens
        self._passwords = passwords
        self._guard = guard

    async def login(self, body: Login, address: str, user_agent: str | None) -> TokenOut:
        """A new session. Raises `identity.bad_credentials` (401), `identity.locked_out` (429), `identity.busy` (503).

        Signing in works before the address is confirmed. An address without an account costs a hash, too.
        """
        # A flood of sign-ins may hold as many requests as may wait for a hash, and asks Redis and the database no more
        # often than that.
        with self._passwords.place():
            return await self._login(body, address, user_agent)

    async def _login(self, body: Login, address: str, user_agent: str | None) -> TokenOut:
        last = await self._guard.begin(body.email, address)
        async with self._db.reader() as tx:
            user = await users.find_by_email(tx, body.email)
        usable = user.password_hash if user is not None and user.is_active else None
        fits = await self._passwords.verify(usable, body.password, placed=True)
        if not fits or user is None or usable is None:
            await self._note_failure(user, address, last=last)
            raise BAD_CREDENTIALS(headers=_CHALLENGE)
        stale = self._passwords.needs_rehash(usable)
        rehashed = await self._passwords.hash(body.password, placed=True) if stale else None
        async with self._db.uow() as tx:
            current = await users.find(tx, user.id, lock=True)
            if current is None or not current.is_active or current.password_hash != usable:
                raise BAD_CREDENTIALS(headers=_CHALLENGE)
            if rehashed is not None:
                await users.change(tx, user.id, password_hash=rehashed)
            current = await users.touch_login(tx, user.id)
            pair = await self._tokens.open_session(tx, current, address=address, user_agent=user_agent)
            await audit.record(tx, "login_success", actor_id=user.id, address=address)
        await self._guard.succeeded(body.email, address)
        return _token_out(pair)

    async def refresh(self, refresh_token: str, address: str | None) -> TokenOut:
        """The next pair of a session. Raises `identity.bad_refresh_token` (401)."""
        return _token_out(await self._tokens.refresh(refresh_token, address))

    async def logout(self, principal: Principal, address: str | None) -> None:
        """Ends the session with all its tokens."""
        async with self._db.uow() as tx:
            if principal.session_id is not None:
                await self._tokens.end_sessions(tx, principal.user_id, "logout", only=principal.session_id)
            await audit.record(tx, "logout", actor_id=principal.user_id, address=address)

    async def logout_everywhere(self, principal: Principal, address: str | None) -> int:
        """Ends every session of the caller, this one included; returns how many."""
        async with self._db.uow() as tx:
            ended = await self._tokens.end_sessions(tx, principal.user_id, "logout_everywhere")
            await audit.record(
                tx, "logout_everywhere", actor_id=principal.user_id, address=address, sessions=len(ended)
            )
        return len(ended)

    async def me(self, principal: Principal) -> UserOut:
        """The own account."""
        async with self._db.reader() as tx:
            return UserOut.of(await self._require_user(tx, principal.user_id))

    async def update_me(self, principal: Principal, body: UpdateMe) -> UserOut:
        """Changes the own profile. Attributes are merged; those of providers are refused with 422."""
        async with self._db.uow() as tx:
            user = await self._require_user(tx, principal.user_id, lock=True)
            changes: dict[str, Any] = {}
            if body.full_name is not None:
                changes["full_name"] = body.full_name
            if body.department is not None:
                changes["department"] = body.department
            if body.attributes is not None:
                changes["attributes"] = rules.merged_attributes(user.attributes, body.attributes)
            if changes:
                user = await users.change(tx, user.id, **changes)
            return UserOut.of(user)

    async def confirm_password(self, principal: Principal, password: str | None) -> None:
        """Raises `identity.wrong_password` unless it is the caller's; an account without one needs none."""
        async with self._db.reader() as tx:
            user = await self._require_user(tx, principal.user_id)
        if user.password_hash is not None and not await self._passwords.verify(user.password_hash, password or ""):
            raise WRONG_PASSWORD()

    async def list_sessions(self, principal: Principal) -> list[SessionOut]:
        """The caller's live sessions, the one used last first, 100 at most."""
        async with self._db.reader() as tx:
            found = await self._tokens.live_sessions(tx, principal.user_id)
        return [SessionOut.of(session, is_current=session.id == principal.session_id) for session in found]

    async def end_session(self, principal: Principal, session_id: str, address: str | None) -> None:
        """Ends one of the caller's sessions. Raises `identity.session_not_found` (404)."""
        async with self._db.uow() as tx:
            if not await self._tokens.end_sessions(tx, principal.user_id, "ended", only=session_id):
                raise SESSION_NOT_FOUND()
            await audit.record(tx, "session.ended", actor_id=principal.user_id, address=address, session_id=session_id)

    async def make_super_admin(self, email: str) -> UserOut:
        """Makes the account of an address a platform super admin; its sessions must sign in again."""
        async with self._db.uow() as tx:
            user = await users.find_by_email(tx, rules.normal_email(email))
            if user is None:
                raise USER_NOT_FOUND()
            user = await users.change(tx, user.id, is_super_admin=True)
            await self._tokens.end_sessions(tx, user.id, "super_admin")
            await audit.record(tx, "user.super_admin", actor_id=user.id, actor_type="operator")
            return UserOut.of(user)

    async def users_by_id(self, ids: list[str]) -> list[User]:
        """The accounts that exist among `ids`."""
        async with self._db.reader() as tx:
            return list(await users.find_many(tx, ids))

    async def _note_failure(self, user: User | None, address: str, *, last: bool) -> None:
        actor = user.id if user is not None else None
        async with self._db.uow() as tx:
            await audit.record(tx, "login_failed", actor_id=actor, address=address)
            if last:
                await audit.record(tx, "login_blocked_lockout", actor_id=actor, address=address)

    async def _require_user(self, tx: Tx, user_id: str, *, lock: bool = False) -> User:
        user = await users.find(tx, user_id, lock=lock)
        if user is None:
            raise USER_NOT_FOUND()
        return user


def _token_out(pair: TokenPair) -> TokenOut:
    return TokenOut(access_token=pair.access_token, refresh_token=pair.refresh_token, expires_in=pair.expires_in)
