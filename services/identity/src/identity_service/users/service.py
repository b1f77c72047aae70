"""Accounts, for the rooms above: each function joins the caller's transaction and says what changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from identity_service import events
from identity_service.users import store
from identity_service.users.tables import User
from servicekit.db import Tx


async def register(tx: Tx, **values: Any) -> User:
    """A new account. Raises IntegrityError when the address is taken."""
    user = await store.add(tx, **values)
    events.user_registered(tx, user)
    return user


async def change(tx: Tx, user_id: str, **values: Any) -> User:
    """Sets the given columns of an account that exists."""
    user = await store.change(tx, user_id, **values)
    events.user_updated(tx, user)
    return user


async def touch_login(tx: Tx, user_id: str) -> User:
    """Notes a sign-in; nobody needs to hear of it."""
    return await store.touch_login(tx, user_id)


async def find(tx: Tx, user_id: str, *, lock: bool = False) -> User | None:
    """The account, None when there is none or it was deleted."""
    return await store.find(tx, user_id, lock=lock)


async def find_by_email(tx: Tx, email: str) -> User | None:
    """The account of an address (lower case), None when there is none or it was deleted."""
    return await store.find_by_email(tx, email)


async def find_many(tx: Tx, ids: Sequence[str]) -> Sequence[User]:
    """The accounts that exist among `ids`, deleted ones left out."""
    return await store.find_many(tx, ids)
