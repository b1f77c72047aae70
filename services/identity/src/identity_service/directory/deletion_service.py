"""The end of an account: wished for, taken back, carried out when the grace period is over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from identity_service.audit import service as audit
from identity_service.auth.api_key_service import ApiKeyService
from identity_service.auth.service import AuthService
from identity_service.directory import store
from identity_service.directory.schemas import DeleteAccount, DeletionOut
from identity_service.directory.tables import AccountDeletion
from identity_service.errors import DELETION_NOT_FOUND, LAST_OWNER, SOLE_OWNER, USER_NOT_FOUND
from identity_service.mail.service import MailService
from identity_service.organizations import erasure_service as organizations
from identity_service.settings import Settings
from identity_service.tokens.service import TokenService
from identity_service.users import service as users
from identity_service.users.rules import placeholder
from servicekit.auth import Principal
from servicekit.db import Database, Tx
from servicekit.errors import AppError
from servicekit.logging import get_logger

_log = get_logger(__name__)

_AT_ONCE = 50
_DEFERRED_BY = timedelta(days=1)
# A notice is worth sending as long as its account is there, and the last one for some days after.
_NOTICE = timedelta(days=3)

Eraser = Callable[[Tx, str], Awaitable[None]]
"""User id → deletes what one room keeps of him, in the same transaction."""


class DeletionService:
    """`erasers`: one of each room that keeps something of a user; the composition root names them."""

    def __init__(
        self,
        db: Database,
        settings: Settings,
        auth: AuthService,
        api_keys: ApiKeyService,
        tokens: TokenService,
        mail: MailService,
        erasers: Sequence[Eraser],
    ) -> None:
        self._db = db
        self._grace = timedelta(days=settings.deletion_grace_days)
        self._auth = auth
        self._api_keys = api_keys
        self._tokens = tokens
        self._mail = mail
        self._erasers = erasers

    async def request(self, principal: Principal, body: DeleteAccount, address: str) -> DeletionOut:
        """Ends all sessions and keys now and the account after the grace period.

        Raises `identity.wrong_password`, and `identity.sole_owner` (409) naming the active organizations that would be
        left without an owner.
        """
        await self._auth.confirm_password(principal, body.current_password)
        async with self._db.uow() as tx:
            user = await users.find(tx, principal.user_id, lock=True)
            if user is None:
                raise USER_NOT_FOUND()
            owned = await organizations.owned_alone(tx, principal.user_id)
            if owned:
                names = ", ".join(organization.name for organization in owned[:10])
                raise SOLE_OWNER(
                    f"Give these organizations another owner or archive them first: {names}.",
                    organization_ids=",".join(organization.id for organization in owned[:100]),
                )
            wish = await store.want_deletion(tx, principal.user_id, self._grace)
            await self._tokens.end_sessions(tx, principal.user_id, "deletion")
            await self._api_keys.end_all_api_keys(tx, principal.user_id, "deletion")
            await self._tokens.revoke(tx, "user", principal.user_id, "deletion")
            await audit.record(tx, "user.deletion_requested", actor_id=principal.user_id, address=address)
            context = {"day": f"{wish.due_at:%d %B %Y}", "url": self._mail.link("/settings")}
            await self._mail.queue(
                tx, "deletion_requested", user.email, context, _key("requested", wish), useful_for=_NOTICE
            )
            return DeletionOut.of(wish)

    async def get(self, principal: Principal) -> DeletionOut:
        """The wish. Raises `identity.deletion_not_found`."""
        async with self._db.reader() as tx:
            wish = await store.find_deletion(tx, principal.user_id)
        if wish is None:
            raise DELETION_NOT_FOUND()
        return DeletionOut.of(wish)

    async def cancel(self, principal: Principal, address: str) -> None:
        """Takes the wish back; possible until the account is gone. Raises `identity.deletion_not_found`."""
        async with self._db.uow() as tx:
            wish = await store.find_deletion(tx, principal.user_id, lock=True)
            user = await users.find(tx, principal.user_id)
            if wish is None or user is None:
                raise DELETION_NOT_FOUND()
            await store.drop_deletion(tx, principal.user_id)
            await audit.record(tx, "user.deletion_cancelled", actor_id=principal.user_id, address=address)
            context = {"reset_url": self._mail.link("/forgot-password")}
            await self._mail.queue(
                tx, "deletion_cancelled", user.email, context, _key("cancelled", wish), useful_for=_NOTICE
            )

    async def erase_due(self) -> int:
        """Erases the accounts whose time has come; returns how many. A job of the leader."""
        async with self._db.reader() as tx:
            due = await store.due_deletions(tx, _AT_ONCE)
        erased = 0
        for user_id in due:
            try:
                erased += await self._erase(user_id)
            except _JoinedMeanwhileError:
                continue
            except AppError as error:
                if error.code != LAST_OWNER.code:
                    raise
                # He became the only owner of an organization since: nobody else could save it, so he stays for now.
                _log.warning("account_deletion_deferred", user_id=user_id)
                await self._defer(user_id)
        return erased

    async def _defer(self, user_id: str) -> None:
        async with self._db.uow() as tx:
            wish = await store.find_deletion(tx, user_id, lock=True)
            user = await users.find(tx, user_id)
            if wish is None or user is None:
                return
            owned = await organizations.owned_alone(tx, user_id)
            names = ", ".join(organization.name for organization in owned[:10])
            await store.defer_deletion(tx, user_id, _DEFERRED_BY)
            await audit.record(tx, "user.deletion_deferred", actor_id=None, actor_type="system", subject_id=user_id)
            # Once: he would learn nothing new from a mail a day.
            context = {"organizations": names, "url": self._mail.link("/settings")}
            await self._mail.queue(tx, "deletion_deferred", user.email, context, _key("deferred", wish))

    async def _erase(self, user_id: str) -> bool:
        async with self._db.uow() as tx:
            # The wish first: a user who takes it back at this moment waits here, or is waited for.
            wish = await store.find_deletion(tx, user_id, lock=True)
            if wish is None:
                return False
            named = await users.find(tx, user_id)
            await organizations.leave_all(tx, user_id, named.email if named is not None else None)
            user = await users.find(tx, user_id, lock=True)
            if user is None:
                await store.drop_deletion(tx, user_id)
                return False
            # From here on nobody can add him, for that takes his lock, too; who was quicker comes next time.
            if await organizations.belongs_anywhere(tx, user_id):
                raise _JoinedMeanwhileError
            address = user.email
            await organizations.forget_address(tx, address, placeholder(user_id))
            for erase in self._erasers:
                await erase(tx, user_id)
            await store.remove_avatar(tx, user_id)
            await self._tokens.end_sessions(tx, user_id, "deleted")
            await self._tokens.revoke(tx, "user", user_id, "deleted")
            await users.erase(tx, user_id)
            await store.drop_deletion(tx, user_id)
            await audit.record(tx, "user.deleted", actor_id=user_id)
            await self._mail.forget(tx, address)
            await self._mail.queue(tx, "account_deleted", address, {}, _key("done", wish), useful_for=_NOTICE)
        return True


class _JoinedMeanwhileError(Exception):
    """The user became a member of an organization between its lock and his own."""


def _key(what: str, wish: AccountDeletion) -> str:
    """One mail of a kind for each wish, however often it is repeated."""
    return f"deletion:{what}:{wish.user_id}:{wish.requested_at.isoformat()}"
