"""The providers: GitHub, GitLab, and whatever speaks OpenID Connect (Google among them)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.integrations.httpx_client import OAuthError as ProviderRefusal
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from identity_service.oauth.rules import (
    Grant,
    Profile,
    https_or_none,
    normal_address,
    text_or_none,
    verified_address,
)
from identity_service.settings import OAuthProvider, Settings
from servicekit.context import assert_no_transaction

_TIMEOUT = httpx2.Timeout(10.0, connect=3.0)
# Providers change addresses and keys rarely; an unknown key is looked up at once, but no more often than every 30 s.
_METADATA_KEPT_S = 3600.0
_KEYS_REFETCH_S = 30.0
_CLOCK_LEEWAY_S = 60
_ID_TOKEN_ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA", "Ed25519"]
# How providers say that a refresh token is worth nothing any more.
_ENDED = frozenset({"invalid_grant", "bad_refresh_token"})
# What an answer of another shape than expected raises while it is read.
_UNUSABLE = (KeyError, ValueError, TypeError, AttributeError)
_GOOGLE = {
    "issuer": "https://accounts.google.com",
    "authorization_endpoint": "https://accounts.google.com/o/oauth2/v2/auth",
    "token_endpoint": "https://oauth2.googleapis.com/token",
    "userinfo_endpoint": "https://openidconnect.googleapis.com/v1/userinfo",
    "jwks_uri": "https://www.googleapis.com/oauth2/v3/certs",
}


class ProviderFailed(Exception):
    """The provider refused, was not there, or answered what cannot be used."""


class GrantEnded(Exception):
    """The provider says that this refresh token is worth nothing any more."""


@dataclass(frozen=True, slots=True)
class Return:
    """What a browser brought back, and what it left with."""

    code: str
    verifier: str
    nonce: str
    redirect_uri: str


class Provider(Protocol):
    """One provider. All calls but the two names go out to it; none may be made inside a transaction."""

    @property
    def name(self) -> str:
        """As it stands in paths."""

    @property
    def manage_url(self) -> str | None:
        """Where its user sees what he granted."""

    async def authorization_url(self, *, state: str, nonce: str, verifier: str, redirect_uri: str) -> str:
        """Where the browser goes, with PKCE (S256). Raises ProviderFailed."""

    async def exchange(self, back: Return) -> tuple[Grant, Profile]:
        """Tokens for the code, and whose they are. Raises ProviderFailed."""

    async def refresh(self, refresh_token: str) -> Grant:
        """The next access token. Raises ProviderFailed, GrantEnded."""


class _Client:
    """The OAuth client that all kinds of providers share."""

    token_method = "client_secret_post"
    extra: Mapping[str, str] = {}

    def __init__(self, name: str, settings: OAuthProvider, scopes: list[str]) -> None:
        self.name = name
        self._settings = settings
        self._scopes = settings.scopes or scopes
        # Making one takes tens of milliseconds, so all requests to the provider share it.
        self._tls = httpx2.create_ssl_context(trust_env=False)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[AsyncOAuth2Client]:
        assert_no_transaction(f"oauth {self.name}")
        client = AsyncOAuth2Client(
            client_id=self._settings.client_id,
            client_secret=self._settings.client_secret.get_secret_value(),
            token_endpoint_auth_method=self.token_method,
            leeway=0,
            timeout=_TIMEOUT,
            verify=self._tls,
            trust_env=False,
        )
        try:
            async with client:
                yield client
        except (AuthlibBaseError, httpx2.HTTPError, httpx2.InvalidURL, *_UNUSABLE) as error:
            raise ProviderFailed(f"{self.name}: {type(error).__name__}: {getattr(error, 'error', '')}") from error

    def _authorization_url(
        self, endpoint: str, *, state: str, nonce: str | None, verifier: str, redirect_uri: str
    ) -> str:
        extra = dict(self.extra) | ({"nonce": nonce} if nonce is not None else {})
        return str(
            prepare_grant_uri(
                endpoint,
                client_id=self._settings.client_id,
                response_type="code",
                redirect_uri=redirect_uri,
                scope=" ".join(self._scopes),
                state=state,
                code_challenge=create_s256_code_challenge(verifier),
                code_challenge_method="S256",
                **extra,
            )
        )

    async def _token(self, client: AsyncOAuth2Client, endpoint: str, back: Return) -> dict[str, Any]:
        token = await client.fetch_token(
            endpoint, code=back.code, code_verifier=back.verifier, redirect_uri=back.redirect_uri
        )
        return dict(token)

    async def _refresh(self, endpoint: str, refresh_token: str) -> Grant:
        async with self._open() as client:
            try:
                token = await client.refresh_token(endpoint, refresh_token=refresh_token)
            except ProviderRefusal as error:
                if error.error in _ENDED:
                    raise GrantEnded(self.name) from error
                raise
            return _grant(dict(token))

    async def _get(self, client: AsyncOAuth2Client, url: str) -> Any:
        response = await client.get(url, headers={"Accept": "application/json", "User-Agent": "omoios"})
        if response.status_code != 200:
            raise ProviderFailed(f"{self.name}: {response.status_code} from {response.request.url.path}")
        return response.json()


class GitHub(_Client):
    """github.com or a GitHub Enterprise server (`base_url`, `api_url`)."""

    def __init__(self, name: str, settings: OAuthProvider) -> None:
        super().__init__(name, settings, ["read:user", "user:email", "repo", "read:org"])
        self._base = settings.base_url or "https://github.com"
        self._api = settings.api_url or (f"{self._base}/api/v3" if settings.base_url else "https://api.github.com")

    @property
    def manage_url(self) -> str | None:
        return f"{self._base}/settings/connections/applications/{self._settings.client_id}"

    async def authorization_url(self, *, state: str, nonce: str, verifier: str, redirect_uri: str) -> str:
        endpoint = f"{self._base}/login/oauth/authorize"
        return self._authorization_url(endpoint, state=state, nonce=None, verifier=verifier, redirect_uri=redirect_uri)

    async def exchange(self, back: Return) -> tuple[Grant, Profile]:
        async with self._open() as client:
            token = await self._token(client, f"{self._base}/login/oauth/access_token", back)
            user = await self._get(client, f"{self._api}/user")
            emails = await self._get(client, f"{self._api}/user/emails")
            profile = Profile(
                provider_user_id=_id(user["id"]),
                verified_email=verified_address(emails),
                username=text_or_none(user.get("login"), 255),
                name=text_or_none(user.get("name"), 255) or text_or_none(user.get("login"), 255),
                avatar_url=https_or_none(user.get("avatar_url")),
            )
        return _grant(token), profile

    async def refresh(self, refresh_token: str) -> Grant:
        return await self._refresh(f"{self._base}/login/oauth/access_token", refresh_token)


class GitLab(_Client):
    """gitlab.com or a server of one's own (`base_url`)."""

    manage_url: str | None = None

    def __init__(self, name: str, settings: OAuthProvider) -> None:
        super().__init__(name, settings, ["read_user", "email"])
        self._base = settings.base_url or "https://gitlab.com"

    async def authorization_url(self, *, state: str, nonce: str, verifier: str, redirect_uri: str) -> str:
        endpoint = f"{self._base}/oauth/authorize"
        return self._authorization_url(endpoint, state=state, nonce=None, verifier=verifier, redirect_uri=redirect_uri)

    async def exchange(self, back: Return) -> tuple[Grant, Profile]:
        async with self._open() as client:
            token = await self._token(client, f"{self._base}/oauth/token", back)
            user = await self._get(client, f"{self._base}/api/v4/user")
            profile = Profile(
                provider_user_id=_id(user["id"]),
                # GitLab shows an address before it is confirmed.
                verified_email=normal_address(user.get("email")) if user.get("confirmed_at") else None,
                username=text_or_none(user.get("username"), 255),
                name=text_or_none(user.get("name"), 255),
                avatar_url=https_or_none(user.get("avatar_url")),
            )
        return _grant(token), profile

    async def refresh(self, refresh_token: str) -> Grant:
        return await self._refresh(f"{self._base}/oauth/token", refresh_token)


class OpenIdConnect(_Client):
    """Any OpenID Connect provider, found by its issuer's discovery document."""

    manage_url: str | None = None

    def __init__(self, name: str, settings: OAuthProvider, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__(name, settings, ["openid", "email", "profile"])
        self._known = metadata
        self._issuer = settings.issuer or str((metadata or {}).get("issuer", ""))
        self._metadata: Mapping[str, Any] | None = None
        self._metadata_at = 0.0
        self._keys: KeySet | None = None
        self._keys_at = 0.0
        self._lock = asyncio.Lock()
        if settings.kind == "google" or name == "google":
            self.extra = {"access_type": "offline", "prompt": "consent"}

    async def authorization_url(self, *, state: str, nonce: str, verifier: str, redirect_uri: str) -> str:
        metadata = await self._discover()
        endpoint = str(metadata["authorization_endpoint"])
        return self._authorization_url(endpoint, state=state, nonce=nonce, verifier=verifier, redirect_uri=redirect_uri)

    async def exchange(self, back: Return) -> tuple[Grant, Profile]:
        metadata = await self._discover()
        async with self._open() as client:
            token = await self._token(client, str(metadata["token_endpoint"]), back)
            claims = await self._verified(client, metadata, token["id_token"], back.nonce)
            if metadata.get("userinfo_endpoint"):
                shown = await self._get(client, str(metadata["userinfo_endpoint"]))
                if shown.get("sub") != claims["sub"]:
                    raise ProviderFailed(f"{self.name}: userinfo of somebody else")
                claims = {**shown, **claims}
            verified = claims.get("email_verified") in (True, "true")
            profile = Profile(
                provider_user_id=_id(claims["sub"]),
                verified_email=normal_address(claims.get("email")) if verified else None,
                username=text_or_none(claims.get("preferred_username"), 255),
                name=text_or_none(claims.get("name"), 255),
                avatar_url=https_or_none(claims.get("picture")),
            )
        return _grant(token), profile

    async def refresh(self, refresh_token: str) -> Grant:
        metadata = await self._discover()
        return await self._refresh(str(metadata["token_endpoint"]), refresh_token)

    async def _discover(self) -> Mapping[str, Any]:
        if self._known is not None:
            return self._known
        async with self._lock:
            if self._metadata is not None and time.monotonic() - self._metadata_at < _METADATA_KEPT_S:
                return self._metadata
            async with self._open() as client:
                url = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
                response = await client.request("GET", url, withhold_token=True)
                found = response.json() if response.status_code == 200 else {}
            if found.get("issuer") != self._issuer:
                raise ProviderFailed(f"{self.name}: no discovery document of this issuer")
            missing = {"authorization_endpoint", "token_endpoint", "jwks_uri"} - set(found)
            if missing:
                raise ProviderFailed(f"{self.name}: the discovery document lacks {', '.join(sorted(missing))}")
            # Read before the token request is made: RFC 8414's default is basic.
            methods = found.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
            self.token_method = "client_secret_post" if "client_secret_post" in methods else "client_secret_basic"
            self._metadata, self._metadata_at = found, time.monotonic()
            return self._metadata

    async def _verified(
        self, client: AsyncOAuth2Client, metadata: Mapping[str, Any], id_token: str, nonce: str
    ) -> dict[str, Any]:
        registry = jwt.JWTClaimsRegistry(
            leeway=_CLOCK_LEEWAY_S,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": self._settings.client_id},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        for fresh in (False, True):
            keys = await self._load_keys(client, str(metadata["jwks_uri"]), fresh=fresh)
            try:
                token = jwt.decode(id_token, keys, algorithms=_ID_TOKEN_ALGORITHMS)
                registry.validate(token.claims)
            except (JoseError, ValueError) as error:
                # The key may be newer than the set that is remembered.
                if not fresh:
                    continue
                raise ProviderFailed(f"{self.name}: id token: {type(error).__name__}") from error
            audience = token.claims["aud"]
            if isinstance(audience, list) and len(audience) > 1 and token.claims.get("azp") != self._settings.client_id:
                raise ProviderFailed(f"{self.name}: id token for somebody else")
            return token.claims
        raise AssertionError("the loop returns or raises")

    async def _load_keys(self, client: AsyncOAuth2Client, url: str, *, fresh: bool) -> KeySet:
        age_s = time.monotonic() - self._keys_at
        if self._keys is None or age_s > _METADATA_KEPT_S or (fresh and age_s > _KEYS_REFETCH_S):
            response = await client.request("GET", url, withhold_token=True)
            if response.status_code != 200:
                raise ProviderFailed(f"{self.name}: {response.status_code} from its keys")
            self._keys, self._keys_at = KeySet.import_key_set(response.json()), time.monotonic()
        return self._keys


def providers_of(settings: Settings) -> dict[str, Provider]:
    """The providers that the settings name."""
    made: dict[str, Provider] = {}
    for name, given in settings.oauth_providers.items():
        kind = given.kind or (name if name in {"github", "gitlab", "google"} else "oidc")
        if kind == "github":
            made[name] = GitHub(name, given)
        elif kind == "gitlab":
            made[name] = GitLab(name, given)
        else:
            made[name] = OpenIdConnect(name, given, _GOOGLE if kind == "google" and given.issuer is None else None)
    return made


def _grant(token: Mapping[str, Any]) -> Grant:
    access = token.get("access_token")
    if not isinstance(access, str) or not access:
        raise ProviderFailed("no access token")
    refresh = token.get("refresh_token")
    expires = token.get("expires_in")
    scope = token.get("scope")
    return Grant(
        access_token=access,
        refresh_token=refresh if isinstance(refresh, str) and refresh else None,
        expires_in_s=int(expires) if isinstance(expires, int | float | str) and str(expires).isdigit() else None,
        # GitHub separates them by commas, the standard by spaces.
        scopes=tuple(sorted(set(scope.replace(",", " ").split()))) if isinstance(scope, str) else (),
    )


def _id(value: object) -> str:
    """The provider's id of a user as text. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | str) or not 0 < len(str(value)) <= 255:
        raise ValueError("no usable user id")
    return str(value)
