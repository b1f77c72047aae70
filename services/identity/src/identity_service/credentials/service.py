"""Users' own keys for other services: kept sealed, handed to services, never shown again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from identity_service.audit import service as audit
from identity_service.credentials import rules, store
from identity_service.credentials.adapters import Providers
from identity_service.credentials.rules import Provider
from identity_service.credentials.schemas import (
    ChangeCredential,
    CredentialOut,
    SaveCredential,
    ValidationOut,
)
from identity_service.credentials.tables import UserCredential
from identity_service.envelope import service as resealing
from identity_service.envelope.rules import Envelope
from identity_service.errors import CREDENTIAL_NOT_FOUND, PROVIDER_UNREACHABLE, TOO_MANY_CREDENTIALS
from identity_service.users import service as users
from servicekit.auth import Principal
from servicekit.db import Database, Tx
from servicekit.ids import new_id


@dataclass(frozen=True, slots=True)
class UsableKey:
    """A key in the clear, for the service that works with it."""

    secret: str
    base_url: str | None
    model: str | None


class CredentialService:
    """Use cases of `/credentials`."""

    def __init__(self, db: Database, envelope: Envelope, providers: Providers) -> None:
        self._db = db
        self._envelope = envelope
        self._providers = providers

    async def list_own(self, principal: Principal) -> list[CredentialOut]:
        """The caller's keys by provider."""
        async with self._db.reader() as tx:
            return [CredentialOut.of(row) for row in await store.list_of(tx, principal.user_id)]

    async def save(self, principal: Principal, provider: Provider, body: SaveCredential, address: str) -> CredentialOut:
        """Keeps a key, in place of one of the same name. The first of a provider becomes its default.

        Raises `identity.too_many_credentials` (409).
        """
        user_id = principal.user_id
        async with self._db.uow() as tx:
            # One writer at a time for each user, so that counting and the default hold.
            await users.find(tx, user_id, lock=True)
            rows = await store.list_of(tx, user_id)
            same = [row for row in rows if row.provider == provider]
            known = next((row for row in same if row.name == body.name), None)
            if known is None and len(rows) >= rules.MAX_KEYS:
                raise TOO_MANY_CREDENTIALS()
            is_default = body.is_default
            if is_default is None:
                is_default = known.is_default if known is not None else not same
            if is_default:
                await store.no_default(tx, user_id, provider)
            values: dict[str, Any] = {
                **self._sealed(user_id, provider, body.api_key),
                "base_url": body.base_url,
                "model": body.model,
                "is_default": is_default,
                "is_active": True,
            }
            if known is None:
                row = await store.add(tx, id=new_id(), user_id=user_id, provider=provider, name=body.name, **values)
            else:
                row = await store.change(tx, known.id, **values)
            await self._record(tx, "credential.saved", row, address)
            return tx.result(CredentialOut.of(row))

    async def change(
        self, principal: Principal, provider: Provider, name: str, body: ChangeCredential, address: str
    ) -> CredentialOut:
        """Changes what the request names. Raises `identity.credential_not_found` (404)."""
        user_id = principal.user_id
        given = body.model_fields_set
        async with self._db.uow() as tx:
            await users.find(tx, user_id, lock=True)
            row = await self._require(tx, user_id, provider, name)
            changes: dict[str, Any] = {field: getattr(body, field) for field in ("base_url", "model") if field in given}
            if body.api_key is not None:
                changes |= self._sealed(user_id, provider, body.api_key)
            if body.is_active is not None:
                changes["is_active"] = body.is_active
            if body.is_default is not None:
                changes["is_default"] = body.is_default
                if body.is_default:
                    await store.no_default(tx, user_id, provider)
            if changes:
                row = await store.change(tx, row.id, **changes)
                await self._record(tx, "credential.changed", row, address, fields=sorted(given))
            return CredentialOut.of(row)

    async def delete(self, principal: Principal, provider: Provider, name: str, address: str) -> None:
        """Forgets a key. Raises `identity.credential_not_found` (404)."""
        async with self._db.uow() as tx:
            await users.find(tx, principal.user_id, lock=True)
            row = await self._require(tx, principal.user_id, provider, name)
            await store.remove(tx, row.id)
            await self._record(tx, "credential.deleted", row, address)

    async def validate(self, principal: Principal, provider: Provider, name: str) -> ValidationOut:
        """Asks the provider about a kept key.

        Raises `identity.credential_not_found` (404), 422 for an address that must not be called,
        `identity.provider_unreachable` (503).
        """
        async with self._db.reader() as tx:
            row = await self._require(tx, principal.user_id, provider, name)
        question = rules.QUESTIONS[provider]
        answer = await self._providers.accepts(question, row.base_url or question.base_url, self._opened(row))
        if answer is None:
            raise PROVIDER_UNREACHABLE()
        return ValidationOut(
            valid=answer, message="The provider takes this key." if answer else "The provider refuses this key."
        )

    async def use(self, user_id: str, provider: str) -> UsableKey | None:
        """The user's key for a provider; None where he left none. Notes its use."""
        async with self._db.uow() as tx:
            row = await store.best(tx, user_id, provider)
            if row is None:
                return None
            await store.touch(tx, row.id)
            return UsableKey(self._opened(row), row.base_url, row.model)

    async def _require(self, tx: Tx, user_id: str, provider: str, name: str) -> UserCredential:
        row = await store.find(tx, user_id, provider, name)
        if row is None:
            raise CREDENTIAL_NOT_FOUND()
        return row

    async def _record(self, tx: Tx, action: str, row: UserCredential, address: str, **details: Any) -> None:
        await audit.record(
            tx, action, actor_id=row.user_id, address=address, provider=row.provider, name=row.name, **details
        )

    def _sealed(self, user_id: str, provider: str, key: str) -> dict[str, Any]:
        return {
            "sealed_key": self._envelope.seal(key.encode(), _purpose(user_id, provider)),
            "hint": rules.hint_of(key),
        }

    def _opened(self, row: UserCredential) -> str:
        return self._envelope.open(row.sealed_key, _purpose(row.user_id, row.provider)).decode()


async def reseal(db: Database, envelope: Envelope) -> int:
    """Seals under the present envelope key what an earlier one sealed; returns how many values."""
    column = UserCredential.sealed_key
    return await resealing.reseal(db, envelope, column, lambda row: _purpose(row.user_id, row.provider))


def _purpose(user_id: str, provider: str) -> str:
    return f"credential:{provider}:{user_id}"


async def erase(tx: Tx, user_id: str) -> None:
    """Deletes the keys of an account that is erased."""
    await store.remove_all(tx, user_id)
