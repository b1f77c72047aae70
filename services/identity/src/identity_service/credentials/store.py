"""SQL of users' keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from identity_service.credentials.tables import UserCredential
from servicekit.db import Tx


async def list_of(tx: Tx, user_id: str) -> Sequence[UserCredential]:
    """The user's keys by provider, the default first; bounded by `MAX_KEYS`."""
    query = (
        select(UserCredential)
        .where(UserCredential.user_id == user_id)
        .order_by(UserCredential.provider, UserCredential.is_default.desc(), UserCredential.name)
    )
    return (await tx.session.execute(query)).scalars().all()


async def find(tx: Tx, user_id: str, provider: str, name: str) -> UserCredential | None:
    """One key."""
    query = select(UserCredential).where(
        UserCredential.user_id == user_id, UserCredential.provider == provider, UserCredential.name == name
    )
    return (await tx.session.execute(query)).scalar_one_or_none()


async def best(tx: Tx, user_id: str, provider: str) -> UserCredential | None:
    """The key to use: an active one, the default before others, the newest before older ones."""
    query = (
        select(UserCredential)
        .where(UserCredential.user_id == user_id, UserCredential.provider == provider, UserCredential.is_active)
        .order_by(UserCredential.is_default.desc(), UserCredential.created_at.desc())
        .limit(1)
    )
    return (await tx.session.execute(query)).scalar_one_or_none()


async def add(tx: Tx, **values: Any) -> UserCredential:
    """Inserts a key. Raises IntegrityError for a second one of the name."""
    return (await tx.session.execute(insert(UserCredential).values(**values).returning(UserCredential))).scalar_one()


async def change(tx: Tx, credential_id: str, **values: Any) -> UserCredential:
    """Sets the given columns."""
    statement = (
        update(UserCredential)
        .where(UserCredential.id == credential_id)
        .values(updated_at=func.now(), **values)
        .returning(UserCredential)
        .execution_options(populate_existing=True)
    )
    return (await tx.session.execute(statement)).scalar_one()


async def no_default(tx: Tx, user_id: str, provider: str) -> None:
    """Takes the mark of the default from whichever key has it."""
    await tx.session.execute(
        update(UserCredential)
        .where(UserCredential.user_id == user_id, UserCredential.provider == provider, UserCredential.is_default)
        .values(is_default=False)
    )


async def remove(tx: Tx, credential_id: str) -> None:
    """Deletes a key."""
    await tx.session.execute(delete(UserCredential).where(UserCredential.id == credential_id))


async def touch(tx: Tx, credential_id: str) -> None:
    """Notes a use."""
    await tx.session.execute(
        update(UserCredential).where(UserCredential.id == credential_id).values(last_used_at=func.now())
    )


async def remove_all(tx: Tx, user_id: str) -> None:
    """Deletes every key of a user."""
    await tx.session.execute(delete(UserCredential).where(UserCredential.user_id == user_id))
