"""API keys: long-lived credentials of a user."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from identity_service.audit import service as audit
from identity_service.auth import rules, store
from identity_service.auth.schemas import ApiKeyOut, ApiKeyWithSecretOut, CreateApiKey
from identity_service.auth.tables import ApiKey
from identity_service.errors import (
    API_KEY_NOT_FOUND,
    ORGANIZATION_NOT_FOUND,
    TOO_MANY_API_KEYS,
    USER_NOT_FOUND,
)
from identity_service.tokens.service import TokenService
from identity_service.users import service as users
from servicekit.auth import Principal
from servicekit.clock import utc_now
from servicekit.db import Database, Tx
from servicekit.ids import new_id

MAX_API_KEYS = 100


class ApiKeyService:
    """Use cases of `/auth/api-keys`, and the verification of keys."""

    def __init__(self, db: Database, tokens: TokenService) -> None:
        self._db = db
        self._tokens = tokens

    async def create_api_key(self, principal: Principal, body: CreateApiKey) -> ApiKeyWithSecretOut:
        """A new API key; its secret is in this answer only. Raises `identity.too_many_api_keys` (409)."""
        secret = rules.new_api_key()
        async with self._db.uow() as tx:
            if body.organization_id is not None:
                principal.require("org:read", body.organization_id, ORGANIZATION_NOT_FOUND)
            if await users.find(tx, principal.user_id, lock=True) is None:
                raise USER_NOT_FOUND()
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
            return tx.result(ApiKeyWithSecretOut(**ApiKeyOut.of(key).model_dump(), key=secret))

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

    async def rotate_api_key(self, principal: Principal, key_id: str, grace_hours: int) -> ApiKeyWithSecretOut:
        """A successor with the same name, scopes, organization and length of life; the old key lives on for the grace.

        Raises `identity.api_key_not_found` (404) also for one that has ended.
        """
        secret = rules.new_api_key()
        async with self._db.uow() as tx:
            old = await store.find_live_api_key(tx, principal.user_id, key_id)
            if old is None:
                raise API_KEY_NOT_FOUND()
            lifetime = old.expires_at - old.created_at if old.expires_at is not None else None
            key = await store.add_api_key(
                tx,
                id=new_id(),
                user_id=old.user_id,
                organization_id=old.organization_id,
                name=old.name,
                key_prefix=secret[: rules.API_KEY_SHOWN],
                digest=rules.digest_of(secret),
                scopes=old.scopes,
                expires_at=utc_now() + lifetime if lifetime is not None else None,
            )
            if grace_hours > 0:
                await store.expire_api_key(tx, old.id, timedelta(hours=grace_hours))
            else:
                await store.end_api_key(tx, old.user_id, old.id)
            # Whoever remembers the old key asks again, and learns of its end.
            await self._tokens.revoke(tx, "api_key", old.id, "rotated")
            await audit.record(
                tx,
                "api_key.rotated",
                actor_id=principal.user_id,
                key_id=key.id,
                replaces=old.id,
                grace_hours=grace_hours,
            )
            return tx.result(ApiKeyWithSecretOut(**ApiKeyOut.of(key).model_dump(), key=secret))

    async def page_of_organization(
        self, tx: Tx, organization_id: str, before: str | None, limit: int
    ) -> Sequence[ApiKey]:
        """The keys of all members that are bound to the organization, newest first. The caller has checked access."""
        return await store.page_of_organization(tx, organization_id, before, limit)

    async def find_of_organization(self, tx: Tx, organization_id: str, key_id: str) -> ApiKey:
        """A key that is bound to the organization. Raises `identity.api_key_not_found` (404)."""
        key = await store.find_of_organization(tx, organization_id, key_id)
        if key is None:
            raise API_KEY_NOT_FOUND()
        return key

    async def end(self, tx: Tx, key: ApiKey, reason: str) -> None:
        """Ends a key everywhere, in the caller's transaction."""
        await store.end_api_key(tx, key.user_id, key.id)
        await self._tokens.revoke(tx, "api_key", key.id, reason)

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


async def erase(tx: Tx, user_id: str) -> None:
    """Deletes the keys of an account that is erased."""
    await store.remove_api_keys(tx, user_id)
