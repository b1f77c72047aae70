"""SQL of pictures, of accounts about to be erased, and of what `/users` reads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from identity_service.directory.tables import AccountDeletion, Avatar
from identity_service.replica import ReplicaPlan
from servicekit.db import Tx


async def set_avatar(tx: Tx, user_id: str, **values: Any) -> None:
    """Puts a picture in the place of the one before."""
    statement = insert(Avatar).values(user_id=user_id, **values)
    await tx.session.execute(
        statement.on_conflict_do_update(index_elements=[Avatar.user_id], set_=values | {"created_at": func.now()})
    )


async def find_avatar(tx: Tx, user_id: str, digest: str) -> Avatar | None:
    """The picture at this address."""
    query = select(Avatar).where(Avatar.user_id == user_id, Avatar.digest == digest)
    return (await tx.session.execute(query)).scalar_one_or_none()


async def remove_avatar(tx: Tx, user_id: str) -> None:
    """Deletes the picture."""
    await tx.session.execute(delete(Avatar).where(Avatar.user_id == user_id))


async def plan_of(tx: Tx, organization_id: str) -> ReplicaPlan | None:
    """The plan of an organization, None where billing never named one."""
    query = select(ReplicaPlan).where(ReplicaPlan.organization_id == organization_id)
    return (await tx.session.execute(query)).scalar_one_or_none()


async def want_deletion(tx: Tx, user_id: str, grace: timedelta) -> AccountDeletion:
    """Notes the wish; a repeated one moves nothing."""
    statement = insert(AccountDeletion).values(user_id=user_id, due_at=func.now() + grace).on_conflict_do_nothing()
    await tx.session.execute(statement)
    return (await tx.session.execute(select(AccountDeletion).where(AccountDeletion.user_id == user_id))).scalar_one()


async def find_deletion(tx: Tx, user_id: str, *, lock: bool = False) -> AccountDeletion | None:
    """The wish of a user."""
    query = select(AccountDeletion).where(AccountDeletion.user_id == user_id)
    return (await tx.session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()


async def drop_deletion(tx: Tx, user_id: str) -> bool:
    """Takes the wish back, or notes that it was fulfilled; False when there was none."""
    statement = delete(AccountDeletion).where(AccountDeletion.user_id == user_id).returning(AccountDeletion.user_id)
    return (await tx.session.execute(statement)).first() is not None


async def defer_deletion(tx: Tx, user_id: str, by: timedelta) -> None:
    """Tries again later."""
    statement = update(AccountDeletion).where(AccountDeletion.user_id == user_id)
    await tx.session.execute(statement.values(due_at=func.now() + by))


async def due_deletions(tx: Tx, limit: int) -> Sequence[str]:
    """Users whose grace period is over."""
    query = select(AccountDeletion.user_id).where(AccountDeletion.due_at <= func.now())
    return (await tx.session.execute(query.order_by(AccountDeletion.due_at).limit(limit))).scalars().all()
