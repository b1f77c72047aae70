"""Providers' tokens and users' keys for the services that work with them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

from identity_service.audit import service as audit
from identity_service.credentials.service import CredentialService
from identity_service.errors import PROVIDER_NOT_CONNECTED, PROVIDER_UNREACHABLE
from identity_service.oauth import rules, store
from identity_service.oauth.adapters import GrantEnded, Provider, ProviderFailed
from identity_service.oauth.service import OAuthService
from identity_service.oauth.tables import OAuthIdentity
from servicekit.clock import utc_now
from servicekit.db import Database
from servicekit.logging import get_logger

_log = get_logger(__name__)

# The provider is asked with a timeout of 10 s; whoever claimed the refresh and died lets others in after this.
_CLAIM_S = 15
_WAIT_S = 0.1
# Callers have a deadline of their own; after this they may come again.
_PATIENCE_S = 4.0


@dataclass(frozen=True, slots=True)
class ProviderCredential:
    """What opens a provider in a user's name. `source`: `oauth`, or `credential` for a key that the user left."""

    secret: str
    source: str
    username: str | None = None
    scopes: tuple[str, ...] = ()
    expires_at: datetime | None = None
    base_url: str | None = None
    model: str | None = None


class ProviderTokens:
    """The current token of a user at a provider; refreshed by one caller at a time, over all instances."""

    def __init__(
        self, db: Database, providers: dict[str, Provider], oauth: OAuthService, credentials: CredentialService
    ) -> None:
        self._db = db
        self._providers = providers
        self._oauth = oauth
        self._credentials = credentials

    async def current(self, user_id: str, provider: str) -> ProviderCredential:
        """The connected account's token, else the key that the user left.

        Raises `identity.provider_not_connected` (404) where there is neither, `identity.provider_unreachable` (503)
        where a token has to be refreshed and the provider is away.
        """
        patience = utc_now() + timedelta(seconds=_PATIENCE_S)
        while True:
            async with self._db.reader() as tx:
                identity = await store.find(tx, user_id, provider)
            if identity is None or identity.sealed_access_token is None:
                return await self._left_by_user(user_id, provider)
            soon = utc_now() + timedelta(seconds=rules.REFRESH_BEFORE_S)
            if identity.access_expires_at is None or identity.access_expires_at > soon:
                return self._credential(identity)
            if identity.sealed_refresh_token is None or provider not in self._providers:
                if identity.access_expires_at > utc_now():
                    return self._credential(identity)
                return await self._left_by_user(user_id, provider)
            await self._refresh(identity)
            if utc_now() > patience:
                raise PROVIDER_UNREACHABLE()

    async def _refresh(self, identity: OAuthIdentity) -> None:
        """Exchanges the refresh token, or waits a moment for whoever does."""
        async with self._db.uow() as tx:
            claimed = await store.claim_refresh(tx, identity.id, identity.version, _CLAIM_S)
        if not claimed:
            await asyncio.sleep(_WAIT_S)
            return
        refresh_token = self._oauth.opened(identity, "refresh") or ""
        try:
            grant = await self._providers[identity.provider].refresh(refresh_token)
        except ProviderFailed as error:
            _log.warning("oauth_refresh_failed", provider=identity.provider, reason=str(error))
            async with self._db.uow() as tx:
                await store.release_refresh(tx, identity.id, identity.version)
            raise PROVIDER_UNREACHABLE() from error
        except GrantEnded:
            async with self._db.uow() as tx:
                if await store.forget_tokens(tx, identity.id, identity.version):
                    await audit.record(
                        tx,
                        "oauth.grant_ended",
                        actor_id=identity.user_id,
                        actor_type="provider",
                        provider=identity.provider,
                    )
            return
        async with self._db.uow() as tx:
            await store.change_version(
                tx,
                identity.id,
                identity.version,
                **self._oauth.token_columns(identity.user_id, identity.provider, grant),
            )

    async def _left_by_user(self, user_id: str, provider: str) -> ProviderCredential:
        left = await self._credentials.use(user_id, provider)
        if left is None:
            raise PROVIDER_NOT_CONNECTED()
        return ProviderCredential(left.secret, "credential", base_url=left.base_url, model=left.model)

    def _credential(self, identity: OAuthIdentity) -> ProviderCredential:
        return ProviderCredential(
            self._oauth.opened(identity, "access") or "",
            "oauth",
            username=identity.username,
            scopes=tuple(identity.scopes),
            expires_at=identity.access_expires_at,
        )
