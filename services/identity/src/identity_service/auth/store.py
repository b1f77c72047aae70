"""SQL of API keys, and of the secrets of mailed links."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from identity_service.auth.tables import AccountToken, ApiKey
from servicekit.db import Tx


async def add_api_key(tx: Tx, **values: Any) -> ApiKey:
    """Inserts an API key."""
    return (await tx.session.execute(insert(ApiKey).values(**values).returning(ApiKey))).scalar_one()


async def list_api_keys(tx: Tx, user_id: str, limit: int) -> Sequence[ApiKey]:
    """The user's keys, newest first, ended ones included."""
    query = select(ApiKey).where(ApiKey.user_id == user_id).order_by(ApiKey.created_at.desc()).limit(limit)
    return (await tx.session.execute(query)).scalars().all()


async def end_api_key(tx: Tx, user_id: str, key_id: str) -> ApiKey | None:
    """Ends a key of the user; None when he has no such key."""
    statement = update(ApiKey).where(ApiKey.id == key_id, ApiKey.user_id == user_id).values(is_active=False)
    return (await tx.session.execute(statement.returning(ApiKey))).scalar_one_or_none()


async def page_of_organization(tx: Tx, organization_id: str, before: str | None, limit: int) -> Sequence[ApiKey]:
    """The keys that are bound to an organization, newest first, ended ones included, with ids before `before`."""
    query = select(ApiKey).where(ApiKey.organization_id == organization_id)
    if before is not None:
        query = query.where(ApiKey.id < before)
    return (await tx.session.execute(query.order_by(ApiKey.id.desc()).limit(limit))).scalars().all()


async def find_of_organization(tx: Tx, organization_id: str, key_id: str) -> ApiKey | None:
    """A key that is bound to the organization."""
    query = select(ApiKey).where(ApiKey.id == key_id, ApiKey.organization_id == organization_id)
    return (await tx.session.execute(query)).scalar_one_or_none()


async def find_live_api_key(tx: Tx, user_id: str, key_id: str) -> ApiKey | None:
    """A key of the user that may be used, locked."""
    live = (ApiKey.is_active, func.coalesce(ApiKey.expires_at > func.now(), True))
    query = select(ApiKey).where(ApiKey.id == key_id, ApiKey.user_id == user_id, *live).with_for_update()
    return (await tx.session.execute(query)).scalar_one_or_none()


async def expire_api_key(tx: Tx, key_id: str, within: timedelta) -> None:
    """Lets a key run out by then, or earlier where it would have."""
    end = func.least(func.coalesce(ApiKey.expires_at, func.now() + within), func.now() + within)
    await tx.session.execute(update(ApiKey).where(ApiKey.id == key_id).values(expires_at=end))


async def end_api_keys(tx: Tx, user_id: str) -> Sequence[str]:
    """Ends all keys of the user; returns the ids of those that were live."""
    statement = update(ApiKey).where(ApiKey.user_id == user_id, ApiKey.is_active).values(is_active=False)
    return (await tx.session.execute(statement.returning(ApiKey.id))).scalars().all()


async def use_api_key(tx: Tx, digest: bytes) -> ApiKey | None:
    """The live key with this digest; notes its use at most once a minute."""
    live = (ApiKey.digest == digest, ApiKey.is_active, func.coalesce(ApiKey.expires_at > func.now(), True))
    key = (await tx.session.execute(select(ApiKey).where(*live))).scalar_one_or_none()
    if key is not None:
        stale = func.coalesce(ApiKey.last_used_at < func.now() - timedelta(minutes=1), True)
        await tx.session.execute(update(ApiKey).where(ApiKey.id == key.id, stale).values(last_used_at=func.now()))
    return key


async def add_account_token(tx: Tx, digest: bytes, user_id: str | None, purpose: str, expires_at: datetime) -> None:
    """Inserts a mailed secret; `user_id` None for an address without an account."""
    values = {"digest": digest, "user_id": user_id, "purpose": purpose, "expires_at": expires_at}
    await tx.session.execute(insert(AccountToken).values(**values))


async def owner_of_token(tx: Tx, digest: bytes, purpose: str) -> str | None:
    """Whose secret it is, while it may be used; does not use it up."""
    query = select(AccountToken.user_id).where(AccountToken.digest == digest, *_usable(purpose))
    return (await tx.session.execute(query)).scalar_one_or_none()


async def use_account_token(tx: Tx, digest: bytes, purpose: str) -> str | None:
    """Uses a secret up and returns whose it was; None when it was used, has run out or never was."""
    statement = update(AccountToken).where(AccountToken.digest == digest, *_usable(purpose)).values(used_at=func.now())
    return (await tx.session.execute(statement.returning(AccountToken.user_id))).scalar_one_or_none()


async def end_account_tokens(tx: Tx, user_id: str, purpose: str) -> None:
    """Makes all secrets of the user for this purpose worthless."""
    statement = update(AccountToken).where(AccountToken.user_id == user_id, *_usable(purpose))
    await tx.session.execute(statement.values(used_at=func.now()))


async def count_account_tokens(tx: Tx, user_id: str | None, purpose: str, within: timedelta) -> int:
    """How many secrets for this purpose the user was mailed within a time; 0 for nobody."""
    query = select(func.count()).where(
        # No id is empty: nobody gets the same statement as somebody.
        AccountToken.user_id == (user_id or ""),
        AccountToken.purpose == purpose,
        AccountToken.created_at > func.now() - within,
    )
    return (await tx.session.execute(query)).scalar_one()


async def purge_account_tokens(tx: Tx, older_than: timedelta) -> None:
    """Deletes secrets that ran out before."""
    await tx.session.execute(delete(AccountToken).where(AccountToken.expires_at < func.now() - older_than))


def _usable(purpose: str) -> tuple[Any, ...]:
    return (AccountToken.purpose == purpose, AccountToken.used_at.is_(None), AccountToken.expires_at > func.now())


async def remove_api_keys(tx: Tx, user_id: str) -> None:
    """Deletes all keys of a user."""
    await tx.session.execute(delete(ApiKey).where(ApiKey.user_id == user_id))
