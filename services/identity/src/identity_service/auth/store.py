"""SQL of API keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import func, insert, select, update

from identity_service.auth.tables import ApiKey
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
