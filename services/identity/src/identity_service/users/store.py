"""SQL of the accounts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from identity_service.users.rules import UserFilters
from identity_service.users.tables import User
from servicekit.db import Tx

# Made once: the own account is the most frequent read, and making its statement costs as much as half of running it.
_ONE = select(User).where(User.id == bindparam("user"), User.deleted_at.is_(None))
_LOCKED = _ONE.with_for_update()


async def add(tx: Tx, **values: Any) -> User | None:
    """Inserts an account; None when the address is taken."""
    statement = (
        insert(User)
        .values(**values)
        .on_conflict_do_nothing(index_elements=[User.email], index_where=User.deleted_at.is_(None))
        .returning(User)
    )
    return (await tx.session.execute(statement)).scalar_one_or_none()


async def find(tx: Tx, user_id: str, *, lock: bool = False) -> User | None:
    """The account, None when there is none or it was deleted."""
    return (await tx.session.execute(_LOCKED if lock else _ONE, {"user": user_id})).scalar_one_or_none()


async def find_by_email(tx: Tx, email: str) -> User | None:
    """The account of an address (lower case), None when there is none or it was deleted."""
    query = select(User).where(User.email == email, User.deleted_at.is_(None))
    return (await tx.session.execute(query)).scalar_one_or_none()


async def find_many(tx: Tx, ids: Sequence[str]) -> Sequence[User]:
    """The accounts that exist among `ids`, deleted ones left out."""
    query = select(User).where(User.id.in_(ids), User.deleted_at.is_(None))
    return (await tx.session.execute(query)).scalars().all()


async def change(tx: Tx, user_id: str, **values: Any) -> User:
    """Sets the given columns and raises the version; the account must exist."""
    statement = (
        update(User)
        .where(User.id == user_id)
        .values(version=User.version + 1, updated_at=func.now(), **values)
        .returning(User)
        .execution_options(populate_existing=True)
    )
    return (await tx.session.execute(statement)).scalar_one()


async def touch_login(tx: Tx, user_id: str) -> User:
    """Notes a sign-in without raising the version: nobody replicates it."""
    statement = (
        update(User)
        .where(User.id == user_id)
        .values(last_login_at=func.now())
        .returning(User)
        .execution_options(populate_existing=True)
    )
    return (await tx.session.execute(statement)).scalar_one()


async def page_by_waitlist(tx: Tx, status: str, limit: int, offset: int, *, lock: bool = False) -> Sequence[User]:
    """A page of the accounts in one state of the waiting list, oldest first."""
    query = select(User).where(User.waitlist_status == status, User.deleted_at.is_(None))
    query = query.order_by(User.created_at, User.id).limit(limit).offset(offset)
    return (await tx.session.execute(query.with_for_update() if lock else query)).scalars().all()


async def count_by_waitlist(tx: Tx, status: str) -> int:
    """How many accounts are in one state of the waiting list."""
    query = select(func.count()).select_from(User).where(User.waitlist_status == status, User.deleted_at.is_(None))
    return (await tx.session.execute(query)).scalar_one()


async def page(tx: Tx, filters: UserFilters, *, before: str | None, limit: int) -> Sequence[User]:
    """Accounts that the filters leave, newest first, with ids before `before`."""
    query = select(User).where(User.deleted_at.is_(None))
    if filters.search is not None:
        begin = filters.search.strip().lower()
        query = query.where(
            or_(
                User.email.startswith(begin, autoescape=True),
                func.lower(User.full_name).startswith(begin, autoescape=True),
            )
        )
    for column, value in (
        (User.waitlist_status, filters.waitlist_status),
        (User.is_active, filters.is_active),
        (User.is_super_admin, filters.is_super_admin),
    ):
        if value is not None:
            query = query.where(column == value)
    if before is not None:
        query = query.where(User.id < before)
    return (await tx.session.execute(query.order_by(User.id.desc()).limit(limit))).scalars().all()
