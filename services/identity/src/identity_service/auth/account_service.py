"""Accounts: making them, confirming their addresses, their passwords.

What a stranger can ask about an address costs and answers the same whether or not it has an account: the same
statements, the same hashing, and a mail that is sent later or never.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from identity_service.audit import service as audit
from identity_service.auth import rules, store
from identity_service.auth.adapters import LoginGuard, Passwords
from identity_service.auth.api_key_service import ApiKeyService
from identity_service.auth.schemas import ChangePassword, Register, ResetPassword, SetPassword, UserOut
from identity_service.errors import (
    BAD_ACCOUNT_TOKEN,
    NO_PASSWORD,
    PASSWORD_IS_SET,
    USER_NOT_FOUND,
    WRONG_PASSWORD,
)
from identity_service.mail.service import MailService
from identity_service.settings import Settings
from identity_service.tokens.service import TokenService
from identity_service.users import service as users
from identity_service.users.tables import User
from servicekit.auth import Principal
from servicekit.clock import utc_now
from servicekit.db import Database, Tx
from servicekit.errors import invalid
from servicekit.ids import new_id

# Ends every connection of an account to a provider, in the caller's transaction.
ForgetIdentities = Callable[[Tx, str], Awaitable[None]]

_VERIFY, _RESET = "verify_email", "reset_password"
_LIFETIME = {_VERIFY: timedelta(hours=24), _RESET: timedelta(hours=1)}
# A stranger must not fill anybody's mailbox. The links of the mails before still work.
_MAILS_AN_HOUR = 3
_KEPT = timedelta(days=7)


class AccountService:
    """Use cases around an account's address and password."""

    def __init__(
        self,
        db: Database,
        settings: Settings,
        tokens: TokenService,
        mail: MailService,
        passwords: Passwords,
        api_keys: ApiKeyService,
        guard: LoginGuard,
        forget_identities: ForgetIdentities,
    ) -> None:
        self._db = db
        self._settings = settings
        self._tokens = tokens
        self._mail = mail
        self._passwords = passwords
        self._guard = guard
        self._api_keys = api_keys
        self._forget_identities = forget_identities

    async def register(self, body: Register, address: str | None) -> UserOut:
        """A new account and the mail that confirms its address. Raises 422 for a password made of the address.

        A taken address is answered alike, with an id that belongs to nobody; its owner gets a mail.
        """
        _refuse_own_name("password", body.password, body.email)
        password_hash = await self._passwords.hash(body.password)
        async with self._db.uow() as tx:
            user, made = await users.register(
                tx,
                self._settings,
                id=new_id(),
                email=body.email,
                password_hash=password_hash,
                full_name=body.full_name,
                department=body.department,
                waitlist_metadata={"referral_source": body.referral_source} if body.referral_source else None,
            )
            secret = await self._add_secret(tx, user.id if made else None, _VERIFY)
            if made:
                await self._mail.queue(tx, _VERIFY, user.email, self._link(_VERIFY, secret), f"{_VERIFY}:{new_id()}")
                await audit.record(tx, "user.registered", actor_id=user.id, address=address)
                return UserOut.of(user)
            context = {"login_url": self._mail.link("/login"), "reset_url": self._reset_url()}
            # One a day: whoever tries again and again must not fill the owner's mailbox.
            await self._mail.queue(tx, "address_taken", user.email, context, f"taken:{user.id}:{utc_now():%Y-%m-%d}")
            await audit.record(tx, "user.register_refused", actor_id=user.id, address=address)
            return UserOut(
                id=new_id(),
                email=body.email,
                full_name=body.full_name,
                department=body.department,
                is_active=True,
                is_verified=False,
                is_super_admin=False,
                avatar_url=None,
                attributes=None,
                waitlist_status="pending" if self._settings.waitlist else "approved",
                created_at=utc_now(),
                last_login_at=None,
            )

    async def resend_verification(self, email: str) -> None:
        """Mails another link that confirms an address, to whoever has an unconfirmed account of it."""
        async with self._db.uow() as tx:
            user = await users.find_by_email(tx, email)
            await self._mail_link(tx, user if user is not None and not user.is_verified else None, email, _VERIFY)

    async def verify_email(self, secret: str, address: str | None) -> None:
        """Confirms the address that a secret was mailed to. Raises `identity.bad_account_token` (400)."""
        async with self._db.uow() as tx:
            user_id = await store.use_account_token(tx, rules.digest_of(secret), _VERIFY)
            user = await users.find(tx, user_id, lock=True) if user_id is not None else None
            if user is None:
                raise BAD_ACCOUNT_TOKEN()
            await store.end_account_tokens(tx, user.id, _VERIFY)
            if not user.is_verified:
                await users.change(tx, user.id, is_verified=True)
            await audit.record(tx, "email_verified", actor_id=user.id, address=address)

    async def forgot_password(self, email: str) -> None:
        """Mails a link that sets another password, to whoever has an account of the address."""
        async with self._db.uow() as tx:
            user = await users.find_by_email(tx, email)
            await self._mail_link(tx, user if user is not None and user.is_active else None, email, _RESET)

    async def reset_password(self, body: ResetPassword, address: str) -> None:
        """Sets another password by a mailed secret and ends every session. Raises `identity.bad_account_token` (400).

        The mail reached its owner, so the address counts as confirmed.
        """
        digest = rules.digest_of(body.token)
        async with self._db.reader() as tx:
            user_id = await store.owner_of_token(tx, digest, _RESET)
            user = await users.find(tx, user_id) if user_id is not None else None
        if user is None:
            raise BAD_ACCOUNT_TOKEN()
        _refuse_own_name("new_password", body.new_password, user.email)
        password_hash = await self._passwords.hash(body.new_password)
        async with self._db.uow() as tx:
            locked = await users.find(tx, user.id, lock=True)
            if locked is None or await store.use_account_token(tx, digest, _RESET) is None:
                raise BAD_ACCOUNT_TOKEN()
            await store.end_account_tokens(tx, user.id, _RESET)
            if not locked.is_verified:
                # Whoever registered the address before without proof keeps no other way in.
                await self._api_keys.end_all_api_keys(tx, locked.id, "password_reset")
                await self._forget_identities(tx, locked.id)
            await self._set_password(tx, locked, password_hash, "password_reset", address, verified=True)
        # Whoever reads the owner's mail is the owner: strangers' failures do not hold him up any longer.
        await self._guard.succeeded(user.email, address)

    async def change_password(self, principal: Principal, body: ChangePassword, address: str | None) -> None:
        """Sets another password and ends all other sessions.

        Raises `identity.wrong_password`, `identity.no_password` (400) for an account that has none.
        """
        async with self._db.reader() as tx:
            user = await users.find(tx, principal.user_id)
        if user is None:
            raise USER_NOT_FOUND()
        if user.password_hash is None:
            raise NO_PASSWORD()
        _refuse_own_name("new_password", body.new_password, user.email)
        if not await self._passwords.verify(user.password_hash, body.current_password):
            raise WRONG_PASSWORD()
        password_hash = await self._passwords.hash(body.new_password)
        async with self._db.uow() as tx:
            locked = await users.find(tx, user.id, lock=True)
            if locked is None or locked.password_hash != user.password_hash:
                raise WRONG_PASSWORD()
            await self._set_password(tx, locked, password_hash, "password_change", address, keep=principal.session_id)

    async def set_password(self, principal: Principal, body: SetPassword, address: str | None) -> None:
        """A first password for an account that signs in by a provider. Raises `identity.password_is_set` (409)."""
        async with self._db.reader() as tx:
            user = await users.find(tx, principal.user_id)
        if user is None:
            raise USER_NOT_FOUND()
        if user.password_hash is not None:
            raise PASSWORD_IS_SET()
        _refuse_own_name("new_password", body.new_password, user.email)
        password_hash = await self._passwords.hash(body.new_password)
        async with self._db.uow() as tx:
            locked = await users.find(tx, user.id, lock=True)
            if locked is None or locked.password_hash is not None:
                raise PASSWORD_IS_SET()
            await self._set_password(tx, locked, password_hash, "password_set", address, keep=principal.session_id)

    async def purge(self) -> None:
        """Drops mailed secrets that ran out a week ago."""
        async with self._db.uow() as tx:
            await store.purge_account_tokens(tx, _KEPT)

    async def _set_password(
        self,
        tx: Tx,
        user: User,
        password_hash: str,
        action: str,
        address: str | None,
        *,
        keep: str | None = None,
        verified: bool = False,
    ) -> None:
        await users.change(tx, user.id, password_hash=password_hash, is_verified=user.is_verified or verified)
        await store.end_account_tokens(tx, user.id, _RESET)
        await self._tokens.end_sessions(tx, user.id, action, keep=keep)
        await audit.record(tx, action, actor_id=user.id, address=address)
        context = {"reset_url": self._reset_url()}
        await self._mail.queue(tx, "password_changed", user.email, context, f"{action}:{new_id()}")

    async def _mail_link(self, tx: Tx, user: User | None, email: str, purpose: str) -> None:
        """A mailed secret for the user; for nobody the same statements, and a mail that is never sent."""
        user_id = user.id if user is not None else None
        mailed = await store.count_account_tokens(tx, user_id, purpose, timedelta(hours=1))
        secret = await self._add_secret(tx, user_id, purpose)
        await self._mail.queue(
            tx,
            purpose,
            email,
            self._link(purpose, secret),
            f"{purpose}:{new_id()}",
            useful_for=_LIFETIME[purpose],
            deliver=user is not None and mailed < _MAILS_AN_HOUR,
        )

    async def _add_secret(self, tx: Tx, user_id: str | None, purpose: str) -> str:
        secret = rules.new_account_secret()
        await store.add_account_token(tx, rules.digest_of(secret), user_id, purpose, utc_now() + _LIFETIME[purpose])
        return secret

    def _link(self, purpose: str, secret: str) -> dict[str, str]:
        return {"url": self._mail.link("/verify-email" if purpose == _VERIFY else "/reset-password", token=secret)}

    def _reset_url(self) -> str:
        return self._mail.link("/forgot-password")


def _refuse_own_name(field: str, password: str, email: str) -> None:
    if rules.contains_own_name(password, email):
        raise invalid(field, "must not be made of the address")
