"""Accounts, for the rooms above: each function joins the caller's transaction and says what changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from identity_service import events
from identity_service.errors import EMAIL_NOT_VERIFIED, NOT_APPROVED, USER_NOT_FOUND
from identity_service.settings import Settings
from identity_service.users import store
from identity_service.users.rules import UserFilters, placeholder
from identity_service.users.tables import User
from servicekit.clock import utc_now
from servicekit.db import Tx


async def register(tx: Tx, settings: Settings, **values: Any) -> tuple[User, bool]:
    """(a new account, True), or (the account that has the address already, False)."""
    while True:
        user = await store.add(tx, waitlist_status="pending" if settings.waitlist else "approved", **values)
        if user is not None:
            events.user_registered(tx, user)
            return user, True
        # None here: that account was deleted in between, so the address is free again.
        user = await store.find_by_email(tx, values["email"])
        if user is not None:
            return user, False


def require_approved(user: User) -> None:
    """Raises `identity.not_approved` (403, the contract's object) for an account on the waiting list."""
    if user.waitlist_status != "approved":
        detail = {"error": "waitlist_pending", "message": NOT_APPROVED.detail, "waitlist_status": user.waitlist_status}
        raise NOT_APPROVED(detail_object=detail)


async def require_admitted(tx: Tx, settings: Settings, user_id: str, *, lock: bool = False) -> User:
    """The account, when it may make organizations and join them; `lock` keeps it until the end of the transaction.

    Raises `identity.user_not_found`, as `require_approved`, `identity.email_not_verified`
    (403) where `Settings.needs_verified_email`.
    """
    user = await store.find(tx, user_id, lock=lock)
    if user is None:
        raise USER_NOT_FOUND()
    require_approved(user)
    if settings.needs_verified_email and not user.is_verified:
        raise EMAIL_NOT_VERIFIED()
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


async def page_by_waitlist(tx: Tx, status: str, limit: int, offset: int, *, lock: bool = False) -> Sequence[User]:
    """A page of the accounts in one state of the waiting list, oldest first."""
    return await store.page_by_waitlist(tx, status, limit, offset, lock=lock)


async def count_by_waitlist(tx: Tx, status: str) -> int:
    """How many accounts are in one state of the waiting list."""
    return await store.count_by_waitlist(tx, status)


async def page(tx: Tx, filters: UserFilters, *, before: str | None, limit: int) -> Sequence[User]:
    """Accounts that the filters leave, newest first, with ids before `before`."""
    return await store.page(tx, filters, before=before, limit=limit)


async def erase(tx: Tx, user_id: str) -> User:
    """Leaves of an account that exists nothing but its id, and tells it."""
    user = await store.change(
        tx,
        user_id,
        email=placeholder(user_id),
        password_hash=None,
        full_name=None,
        department=None,
        avatar_url=None,
        attributes=None,
        waitlist_metadata=None,
        is_active=False,
        is_verified=False,
        is_super_admin=False,
        last_login_at=None,
        deleted_at=utc_now(),
    )
    events.user_deleted(tx, user)
    return user
