"""Accounts and signing in."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from sqlalchemy.exc import IntegrityError

from identity_service.audit import service as audit
from identity_service.auth import rules, store
from identity_service.auth.adapters import LoginGuard, Passwords
from identity_service.auth.schemas import (
    ApiKeyOut,
    ApiKeyWithSecretOut,
    ChangePassword,
    CreateApiKey,
    Login,
    Register,
    TokenOut,
    UpdateMe,
    UserOut,
)
from identity_service.auth.tables import ApiKey
from identity_service.errors import (
    API_KEY_NOT_FOUND,
    BAD_CREDENTIALS,
    EMAIL_TAKEN,
    ORGANIZATION_NOT_FOUND,
    TOO_MANY_API_KEYS,
    USER_NOT_FOUND,
    WRONG_PASSWORD,
)
from identity_service.tokens.service import TokenPair, TokenService
from identity_service.users import service as users
from identity_service.users.tables import User
from servicekit.auth import Principal
from servicekit.clock import utc_now
from servicekit.db import Database, Tx
from servicekit.errors import invalid
from servicekit.ids import new_id

MAX_API_KEYS = 100


class AuthService:
    """Use cases of `/auth`."""

    def __init__(self, db: Database, tokens: TokenService, passwords: Passwords, guard: LoginGuard) -> None:
        self._db = db
        self._tokens = tokens
        self._passwords = passwords
        self._guard = guard

    async def register(self, body: Register, address: str | None) -> UserOut:
        """A new account. Raises `identity.email_taken`, and 422 for a password made of the address."""
        if rules.contains_own_name(body.password, body.email):
            raise invalid("password", "must not be made of the address")
        password_hash = await self._passwords.hash(body.password)
        try:
            async with self._db.uow() as tx:
                user = await users.register(
                    tx,
                    id=new_id(),
                    email=body.email,
                    password_hash=password_hash,
                    full_name=body.full_name,
                    department=body.department,
                    waitlist_metadata={"referral_source": body.referral_source} if body.referral_source else None,
                )
                await audit.record(tx, "user.registered", actor_id=user.id, address=address)
                return tx.result(UserOut.of(user))
        except IntegrityError as error:
            raise EMAIL_TAKEN() from error

    async def login(self, body: Login, address: str, user_agent: str | None) -> TokenOut:
        """A new session. Raises `identity.bad_credentials` (401), `identity.locked_out` (429)."""
        await self._guard.check(body.email, address)
        async with self._db.reader() as tx:
            user = await users.find_by_email(tx, body.email)
        usable = user.password_hash if user is not None and user.is_active else None
        if not await self._passwords.verify(usable, body.password) or user is None:
            await self._guard.failed(body.email, address)
            async with self._db.uow() as tx:
                actor = user.id if user is not None else None
                await audit.record(tx, "login_failed", actor_id=actor, address=address)
            raise BAD_CREDENTIALS(headers={"WWW-Authenticate": "Bearer"})
        rehashed = None
        if usable is not None and self._passwords.needs_rehash(usable):
            rehashed = await self._passwords.hash(body.password)
        async with self._db.uow() as tx:
            current = await users.find(tx, user.id, lock=True)
            if current is None or not current.is_active or current.password_hash != usable:
                raise BAD_CREDENTIALS(headers={"WWW-Authenticate": "Bearer"})
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
                changes["attributes"] = _merged(user.attributes, body.attributes)
            if changes:
                user = await users.change(tx, user.id, **changes)
            return UserOut.of(user)

    async def change_password(self, principal: Principal, body: ChangePassword, address: str | None) -> None:
        """Sets another password and ends all other sessions. Raises `identity.wrong_password`."""
        async with self._db.reader() as tx:
            user = await self._require_user(tx, principal.user_id)
        if rules.contains_own_name(body.new_password, user.email):
            raise invalid("new_password", "must not be made of the address")
        if not await self._passwords.verify(user.password_hash, body.current_password):
            raise WRONG_PASSWORD()
        password_hash = await self._passwords.hash(body.new_password)
        async with self._db.uow() as tx:
            current = await self._require_user(tx, user.id, lock=True)
            if current.password_hash != user.password_hash:
                raise WRONG_PASSWORD()
            await users.change(tx, user.id, password_hash=password_hash)
            await self._tokens.end_sessions(tx, user.id, "password_change", keep=principal.session_id)
            await audit.record(tx, "password_change", actor_id=user.id, address=address)

    async def create_api_key(self, principal: Principal, body: CreateApiKey) -> ApiKeyWithSecretOut:
        """A new API key; its secret is in this answer only. Raises `identity.too_many_api_keys` (409)."""
        secret = rules.new_api_key()
        async with self._db.uow() as tx:
            if body.organization_id is not None:
                principal.require("org:read", body.organization_id, ORGANIZATION_NOT_FOUND)
            await self._require_user(tx, principal.user_id, lock=True)
            keys = await store.list_api_keys(tx, principal.user_id, MAX_API_KEYS + 1)
            if sum(key.is_active for key in keys) >= MAX_API_KEYS:
                raise TOO_MANY_API_KEYS()
            lifetime = timedelta(days=body.expires_in_days) if body.expires_in_days is not None else None
            key = await store.add_api_key(
                tx,
                id=new_id(),
                user_id=principal.user_id,
                organization_id=body.organization_id,
                name=body.name,
                key_prefix=secret[: rules.API_KEY_SHOWN],
                digest=rules.digest_of(secret),
                scopes=sorted(set(body.scopes)),
                expires_at=utc_now() + lifetime if lifetime is not None else None,
            )
            await audit.record(tx, "api_key.created", actor_id=principal.user_id, key_id=key.id, name=body.name)
            return ApiKeyWithSecretOut(**ApiKeyOut.of(key).model_dump(), key=secret)

    async def list_api_keys(self, principal: Principal) -> list[ApiKeyOut]:
        """The caller's keys, newest first, ended ones included, 200 at most."""
        async with self._db.reader() as tx:
            return [ApiKeyOut.of(key) for key in await store.list_api_keys(tx, principal.user_id, 200)]

    async def end_api_key(self, principal: Principal, key_id: str) -> None:
        """Ends a key everywhere. Raises `identity.api_key_not_found` (404)."""
        async with self._db.uow() as tx:
            if await store.end_api_key(tx, principal.user_id, key_id) is None:
                raise API_KEY_NOT_FOUND()
            await self._tokens.revoke(tx, "api_key", key_id, "ended")
            await audit.record(tx, "api_key.ended", actor_id=principal.user_id, key_id=key_id)

    async def end_all_api_keys(self, tx: Tx, user_id: str, reason: str) -> None:
        """Ends every key of the user everywhere, in the caller's transaction."""
        for key_id in await store.end_api_keys(tx, user_id):
            await self._tokens.revoke(tx, "api_key", key_id, reason)

    async def verify_api_key(self, secret: str) -> ApiKey | None:
        """The live key with this secret whose user is active; notes its use."""
        async with self._db.uow() as tx:
            key = await store.use_api_key(tx, rules.digest_of(secret))
            if key is None:
                return None
            user = await users.find(tx, key.user_id)
            return key if user is not None and user.is_active else None

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

    async def _require_user(self, tx: Tx, user_id: str, *, lock: bool = False) -> User:
        user = await users.find(tx, user_id, lock=lock)
        if user is None:
            raise USER_NOT_FOUND()
        return user


def _token_out(pair: TokenPair) -> TokenOut:
    return TokenOut(access_token=pair.access_token, refresh_token=pair.refresh_token, expires_in=pair.expires_in)


def _merged(current: dict[str, Any] | None, changes: dict[str, Any]) -> dict[str, Any]:
    refused = rules.reserved_attributes(changes)
    if refused:
        raise invalid(("attributes", refused[0]), "is reserved")
    merged = {**(current or {}), **changes}
    merged = {key: value for key, value in merged.items() if value is not None}
    if len(json.dumps(merged)) > rules.ATTRIBUTES_MAX_BYTES:
        raise invalid("attributes", f"must not exceed {rules.ATTRIBUTES_MAX_BYTES} bytes as JSON")
    return merged
