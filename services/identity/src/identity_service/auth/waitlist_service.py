"""The waiting list: accounts that may sign in but make no organization before an administrator admits them."""

from __future__ import annotations

from identity_service.audit import service as audit
from identity_service.auth.schemas import UserOut, WaitlistApprovedOut, WaitlistOut
from identity_service.errors import USER_NOT_FOUND
from identity_service.users import service as users
from servicekit.auth import Principal
from servicekit.db import Database

# Rows changed in one transaction: each says an event.
_BATCH = 200


class WaitlistService:
    """Use cases of `/auth/waitlist`, for platform administrators."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def page(self, status: str, limit: int, offset: int) -> WaitlistOut:
        """A page of the accounts in one state (`pending`, `approved`, `none`), oldest first."""
        async with self._db.reader(snapshot=True) as tx:
            found = await users.page_by_waitlist(tx, status, limit, offset)
            total = await users.count_by_waitlist(tx, status)
        return WaitlistOut(users=[UserOut.of(user) for user in found], total=total, limit=limit, offset=offset)

    async def approve(self, principal: Principal, user_id: str, address: str | None) -> WaitlistApprovedOut:
        """Admits one account, whatever its state was. Raises `identity.user_not_found` (404)."""
        async with self._db.uow() as tx:
            user = await users.find(tx, user_id, lock=True)
            if user is None:
                raise USER_NOT_FOUND()
            if user.waitlist_status != "approved":
                user = await users.change(tx, user_id, waitlist_status="approved")
                await audit.record(
                    tx, "waitlist.approved", actor_id=principal.user_id, address=address, user_id=user_id
                )
            return tx.result(WaitlistApprovedOut(message="Admitted.", user=UserOut.of(user)))

    async def approve_all(self, principal: Principal, address: str | None) -> int:
        """Admits everybody who waits, in steps; returns how many."""
        count = 0
        while True:
            async with self._db.uow() as tx:
                waiting = await users.page_by_waitlist(tx, "pending", _BATCH, 0, lock=True)
                for user in waiting:
                    await users.change(tx, user.id, waitlist_status="approved")
                if waiting:
                    await audit.record(
                        tx, "waitlist.approved_all", actor_id=principal.user_id, address=address, count=len(waiting)
                    )
            count += len(waiting)
            if len(waiting) < _BATCH:
                return count
