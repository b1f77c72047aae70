"""Signing in with a provider, connecting and disconnecting accounts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy.exc import IntegrityError

from identity_service.audit import service as audit
from identity_service.auth.api_key_service import ApiKeyService
from identity_service.auth.rules import Cookie, session_cookies
from identity_service.envelope import service as resealing
from identity_service.envelope.rules import Envelope
from identity_service.errors import (
    LAST_SIGN_IN_METHOD,
    PROVIDER_NOT_CONFIGURED,
    PROVIDER_NOT_CONNECTED,
    PROVIDER_UNREACHABLE,
    SOURCE_NOT_CONNECTED,
    USER_NOT_FOUND,
)
from identity_service.oauth import rules, store
from identity_service.oauth.adapters import Provider, ProviderFailed, Return
from identity_service.oauth.rules import Grant, Profile, SignIn
from identity_service.oauth.schemas import (
    AuthUrlOut,
    ConnectedOut,
    ConnectedProvidersOut,
    CopiedOut,
    ProviderOut,
    ProvidersOut,
    RedirectUriOut,
)
from identity_service.oauth.tables import OAuthIdentity
from identity_service.settings import Settings
from identity_service.tokens.service import TokenService
from identity_service.users import service as users
from identity_service.users.tables import User
from servicekit.auth import Principal
from servicekit.clock import utc_now
from servicekit.db import Database, Tx
from servicekit.ids import new_id
from servicekit.logging import get_logger

_log = get_logger(__name__)
_VERIFIER_PURPOSE = "oauth-verifier"
# A first sign-in can meet another one of the same person; the second try finds what that one made.
_TRIES = 2


@dataclass(frozen=True, slots=True)
class Begun:
    """Where the browser goes, and what binds it until it comes back."""

    out: AuthUrlOut
    browser: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Where the browser goes after the provider, with the session's cookies after a sign-in."""

    location: str
    cookies: tuple[Cookie, ...] = ()


@dataclass(frozen=True, slots=True)
class Callback:
    """What a browser brought back, as it came."""

    provider: str
    code: str | None
    state: str | None
    error: str | None
    browser: str | None
    address: str
    user_agent: str | None


@dataclass(frozen=True, slots=True)
class _Left:
    user_id: str | None
    verifier: str
    nonce: str


class _Raced(Exception):
    """Somebody registered the same address at the same moment; the decision is another one now."""


class OAuthService:
    """Use cases of `/oauth`."""

    def __init__(
        self,
        db: Database,
        settings: Settings,
        envelope: Envelope,
        providers: dict[str, Provider],
        api_keys: ApiKeyService,
        tokens: TokenService,
    ) -> None:
        self._db = db
        self._settings = settings
        self._front = settings.oauth_landing_url
        self._public_url = settings.public_url
        self._envelope = envelope
        self._providers = providers
        self._api_keys = api_keys
        self._tokens = tokens

    def list_providers(self) -> ProvidersOut:
        """The three that clients know, then the others that are configured."""
        names = [*rules.LISTED, *(name for name in self._providers if name not in rules.LISTED)]
        return ProvidersOut(
            providers=[
                ProviderOut(
                    name=name,
                    enabled=name in self._providers,
                    manage_url=self._providers[name].manage_url if name in self._providers else None,
                )
                for name in names
            ]
        )

    def redirect_uri(self, provider: str) -> RedirectUriOut:
        """What to register at a provider, whether it is configured or not."""
        calculated = rules.callback_url(self._public_url, provider)
        return RedirectUriOut(
            base_redirect_uri=self._front,
            provider=provider,
            calculated_redirect_uri=calculated,
            message=f"Register {calculated} at the provider.",
        )

    async def connected(self, principal: Principal) -> ConnectedProvidersOut:
        """The caller's connected accounts."""
        async with self._db.reader() as tx:
            await self._approved(tx, principal)
            identities = await store.list_of(tx, principal.user_id)
        return ConnectedProvidersOut(
            providers=[
                ConnectedOut(provider=identity.provider, username=identity.username)
                for identity in identities
                if identity.sealed_access_token is not None
            ]
        )

    async def begin(self, provider: str, browser: str | None) -> Begun:
        """Starts a sign-in. Raises `identity.provider_not_configured` (400), `identity.provider_unreachable` (503)."""
        return await self._begin(provider, browser, None)

    async def begin_connect(self, principal: Principal, provider: str, browser: str | None) -> Begun:
        """Starts the connecting of an account; errors as for `begin`."""
        async with self._db.reader() as tx:
            user = await self._approved(tx, principal)
        return await self._begin(provider, browser, user.id)

    async def finish(self, back: Callback) -> Finished:
        """What a provider's answer comes to. Never raises for a bad one: a browser has to land somewhere."""
        left = await self._take_state(back)
        connecting = left is not None and left.user_id is not None
        if back.error is not None:
            return self._landed(back.error[:200], connecting=connecting)
        if left is None:
            return self._landed("invalid_state")
        provider = self._providers.get(back.provider)
        if provider is None or not back.code:
            return self._landed("oauth_failed", connecting=connecting)
        try:
            grant, profile = await provider.exchange(
                Return(back.code, left.verifier, left.nonce, rules.callback_url(self._public_url, back.provider))
            )
        except ProviderFailed as error:
            _log.info("oauth_failed", provider=back.provider, reason=str(error))
            return self._landed("oauth_failed", connecting=connecting)
        for attempt in range(_TRIES):
            try:
                if left.user_id is not None:
                    return await self._connect(back, left.user_id, grant, profile)
                return await self._sign_in(back, grant, profile)
            except (IntegrityError, _Raced):
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError("the loop returns or raises")

    async def disconnect(self, principal: Principal, provider: str, address: str) -> None:
        """Forgets an account and its tokens.

        Raises `identity.provider_not_connected` (404), `identity.last_sign_in_method` (400).
        """
        async with self._db.uow() as tx:
            user = await self._approved(tx, principal, lock=True)
            identities = await store.list_of(tx, user.id)
            mine = next((identity for identity in identities if identity.provider == provider), None)
            if mine is None:
                raise PROVIDER_NOT_CONNECTED()
            others = [identity for identity in identities if identity.signs_in and identity is not mine]
            if mine.signs_in and user.password_hash is None and not others:
                raise LAST_SIGN_IN_METHOD()
            await store.remove(tx, [mine.id])
            await audit.record(tx, "oauth.disconnected", actor_id=user.id, address=address, provider=provider)

    async def copy_from(self, principal: Principal, provider: str, source_email: str, address: str) -> CopiedOut:
        """Gives a super admin the tokens of another user; written down at both. They never sign anybody in.

        Raises `identity.user_not_found` (404), `identity.source_not_connected` (400).
        """
        principal.require_super_admin()
        async with self._db.uow() as tx:
            caller = await self._approved(tx, principal, lock=True)
            source = await users.find_by_email(tx, source_email)
            if source is None:
                raise USER_NOT_FOUND()
            theirs = await store.find(tx, source.id, provider)
            access = self.opened(theirs, "access") if theirs is not None else None
            if theirs is None or access is None or source.id == caller.id:
                raise SOURCE_NOT_CONNECTED()
            mine = await store.find(tx, caller.id, provider, lock=True)
            values: dict[str, Any] = {
                "provider_user_id": theirs.provider_user_id,
                "signs_in": False,
                "email": theirs.email,
                "username": theirs.username,
                "scopes": theirs.scopes,
                "access_expires_at": theirs.access_expires_at,
                "refreshing_until": None,
                # The refresh token stays with its owner: two holders would end each other's grant.
                "sealed_access_token": self._sealed(caller.id, provider, "access", access),
                "sealed_refresh_token": None,
            }
            if mine is None:
                await store.add(tx, id=new_id(), user_id=caller.id, provider=provider, **values)
            else:
                await store.change(tx, mine.id, **values)
            for actor_id in (caller.id, source.id):
                await audit.record(
                    tx,
                    "oauth.copied",
                    actor_id=actor_id,
                    address=address,
                    provider=provider,
                    source_id=source.id,
                    to_id=caller.id,
                )
            return tx.result(CopiedOut(message="The tokens were copied.", provider=provider, username=theirs.username))

    async def purge(self) -> None:
        """Drops states that nobody can use any more."""
        async with self._db.uow() as tx:
            await store.purge_states(tx)

    def opened(self, identity: OAuthIdentity, which: str) -> str | None:
        """The identity's `access` or `refresh` token in the clear, None where there is none."""
        sealed = identity.sealed_access_token if which == "access" else identity.sealed_refresh_token
        if sealed is None:
            return None
        return self._envelope.open(sealed, _purpose(identity.user_id, identity.provider, which)).decode()

    def token_columns(self, user_id: str, provider: str, grant: Grant) -> dict[str, Any]:
        """The columns of a new grant. A provider that sends no further refresh token keeps the one it gave."""
        life = timedelta(seconds=grant.expires_in_s) if grant.expires_in_s is not None else None
        columns: dict[str, Any] = {
            "sealed_access_token": self._sealed(user_id, provider, "access", grant.access_token),
            "access_expires_at": utc_now() + life if life is not None else None,
            "refreshing_until": None,
        }
        if grant.refresh_token is not None:
            columns["sealed_refresh_token"] = self._sealed(user_id, provider, "refresh", grant.refresh_token)
        if grant.scopes:
            columns["scopes"] = list(grant.scopes)
        return columns

    async def _begin(self, name: str, browser: str | None, user_id: str | None) -> Begun:
        provider = self._providers.get(name)
        if provider is None:
            raise PROVIDER_NOT_CONFIGURED()
        state, nonce, verifier = rules.new_secret(), rules.new_secret(), rules.new_secret()
        # One secret for all that this browser begins: a second sign-in in another tab does not spoil the first.
        bound = browser if browser is not None and rules.is_secret(browser) else rules.new_secret()
        try:
            url = await provider.authorization_url(
                state=state, nonce=nonce, verifier=verifier, redirect_uri=rules.callback_url(self._public_url, name)
            )
        except ProviderFailed as error:
            raise PROVIDER_UNREACHABLE() from error
        async with self._db.uow() as tx:
            await store.add_state(
                tx,
                rules.STATE_TTL_S,
                digest=rules.digest_of(state),
                provider=name,
                user_id=user_id,
                sealed_verifier=self._envelope.seal(verifier.encode(), _VERIFIER_PURPOSE),
                nonce=nonce,
                browser_digest=rules.digest_of(bound),
            )
        return Begun(AuthUrlOut(auth_url=url, state=state), bound)

    async def _take_state(self, back: Callback) -> _Left | None:
        """What the browser left with; None for an unknown, expired or foreign state. A known one is used up."""
        if not rules.is_secret(back.state):
            return None
        async with self._db.uow() as tx:
            row = await store.take_state(tx, rules.digest_of(back.state or ""))
        if row is None or not row.live or row.provider != back.provider:
            return None
        if back.browser is None or rules.digest_of(back.browser) != row.browser_digest:
            return None
        return _Left(row.user_id, self._envelope.open(row.sealed_verifier, _VERIFIER_PURPOSE).decode(), row.nonce)

    async def _sign_in(self, back: Callback, grant: Grant, profile: Profile) -> Finished:
        async with self._db.uow() as tx:
            identity = await store.find_signing_in(tx, back.provider, profile.provider_user_id)
            owner = await users.find(tx, identity.user_id, lock=True) if identity is not None else None
            email = profile.verified_email
            by_email = await users.find_by_email(tx, email) if identity is None and email is not None else None
            if by_email is not None:
                by_email = await users.find(tx, by_email.id, lock=True)
            theirs = await store.find(tx, by_email.id, back.provider) if by_email is not None else None
            decision = rules.decide(
                owner=_account(owner),
                identity_known=identity is not None,
                by_email=_account(by_email, has_identity=theirs is not None and theirs.signs_in),
                profile=profile,
            )
            if decision is SignIn.DISABLED:
                return self._landed("account_disabled")
            if decision is SignIn.UNVERIFIED:
                return self._landed("email_not_verified")
            if decision is SignIn.OTHER_IDENTITY:
                return self._landed("other_account_connected")
            user = owner or by_email
            if user is None:
                user, made = await users.register(
                    tx,
                    self._settings,
                    id=new_id(),
                    email=email,
                    password_hash=None,
                    full_name=profile.name,
                    is_verified=True,
                )
                if not made:
                    raise _Raced
                await audit.record(
                    tx, "user.registered", actor_id=user.id, address=back.address, provider=back.provider
                )
            if decision is SignIn.TAKE_OVER:
                await self._take_over(tx, user, back)
                theirs = None
            await self._keep(tx, user, back.provider, grant, profile, identity or theirs)
            filled = _filled(user, profile, verified=decision is SignIn.TAKE_OVER)
            if filled:
                await users.change(tx, user.id, **filled)
            user = await users.touch_login(tx, user.id)
            pair = await self._tokens.open_session(tx, user, address=back.address, user_agent=back.user_agent)
            await audit.record(
                tx, "login_success", actor_id=user.id, address=back.address, provider=back.provider, how=decision.value
            )
        fragment = {
            "access_token": pair.access_token,
            "refresh_token": pair.refresh_token,
            "provider": back.provider,
        }
        return Finished(
            rules.location(self._front, fragment=fragment),
            session_cookies(pair.access_token, pair.refresh_token, pair.expires_in),
        )

    async def _connect(self, back: Callback, user_id: str, grant: Grant, profile: Profile) -> Finished:
        async with self._db.uow() as tx:
            user = await users.find(tx, user_id, lock=True)
            if user is None or not user.is_active:
                return self._landed("user_not_found", connecting=True)
            known = await store.find_signing_in(tx, back.provider, profile.provider_user_id)
            if known is not None and known.user_id != user.id:
                return self._landed("already_connected", connecting=True)
            mine = await store.find(tx, user.id, back.provider, lock=True)
            await self._keep(tx, user, back.provider, grant, profile, mine)
            await audit.record(tx, "oauth.connected", actor_id=user.id, address=back.address, provider=back.provider)
        told = {"connect": "true", "provider": back.provider, "connected": "true", "username": profile.username or ""}
        return Finished(rules.location(self._front, told))

    async def _keep(
        self, tx: Tx, user: User, provider: str, grant: Grant, profile: Profile, known: OAuthIdentity | None
    ) -> None:
        values = {
            "provider_user_id": profile.provider_user_id,
            "signs_in": True,
            "email": profile.verified_email,
            "username": profile.username,
            **self.token_columns(user.id, provider, grant),
        }
        if known is None:
            await store.add(tx, id=new_id(), user_id=user.id, provider=provider, **values)
        else:
            await store.change(tx, known.id, **values)

    async def _take_over(self, tx: Tx, user: User, back: Callback) -> None:
        """The address's owner is here. Whoever registered it before without proof keeps no way in."""
        await users.change(tx, user.id, password_hash=None)
        await self._tokens.end_sessions(tx, user.id, "taken_over")
        await self._api_keys.end_all_api_keys(tx, user.id, "taken_over")
        await self.forget_all(tx, user.id)
        await audit.record(tx, "user.taken_over", actor_id=user.id, address=back.address, provider=back.provider)

    async def forget_all(self, tx: Tx, user_id: str) -> None:
        """Ends every connection of an account to a provider, in the caller's transaction."""
        await store.remove(tx, [identity.id for identity in await store.list_of(tx, user_id)])

    async def _approved(self, tx: Tx, principal: Principal, *, lock: bool = False) -> User:
        user = await users.find(tx, principal.user_id, lock=lock)
        if user is None:
            raise USER_NOT_FOUND()
        users.require_approved(user)
        return user

    def _landed(self, error: str, *, connecting: bool = False) -> Finished:
        return Finished(rules.location(self._front, {"error": error} | ({"connect": "true"} if connecting else {})))

    def _sealed(self, user_id: str, provider: str, which: str, token: str) -> bytes:
        return self._envelope.seal(token.encode(), _purpose(user_id, provider, which))


async def reseal(db: Database, envelope: Envelope) -> int:
    """Seals under the present envelope key what an earlier one sealed; returns how many values."""
    columns = {"access": OAuthIdentity.sealed_access_token, "refresh": OAuthIdentity.sealed_refresh_token}
    done = 0
    for which, column in columns.items():
        purpose = partial(_purpose_of, which)
        done += await resealing.reseal(db, envelope, column, purpose)
    return done


def _purpose_of(which: str, row: OAuthIdentity) -> str:
    return _purpose(row.user_id, row.provider, which)


def _purpose(user_id: str, provider: str, which: str) -> str:
    return f"oauth-{which}:{provider}:{user_id}"


def _account(user: User | None, *, has_identity: bool = False) -> rules.Account | None:
    return rules.Account(user.is_active, user.is_verified, has_identity) if user is not None else None


def _filled(user: User, profile: Profile, *, verified: bool) -> dict[str, Any]:
    """Name and picture where the account has none."""
    changes: dict[str, Any] = {"is_verified": True} if verified else {}
    if not user.full_name and profile.name:
        changes["full_name"] = profile.name
    if not user.avatar_url and profile.avatar_url:
        changes["avatar_url"] = profile.avatar_url
    return changes


async def erase(tx: Tx, user_id: str) -> None:
    """Deletes the provider accounts, with their tokens, of an account that is erased."""
    await store.remove(tx, [identity.id for identity in await store.list_of(tx, user_id)])
