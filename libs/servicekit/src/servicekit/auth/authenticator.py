"""From the credential on a request to a principal.

The usual request costs a SHA-256 and a handful of dictionary lookups: the token was verified within the last 30 s and
the memberships were read within the last 2 s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

from servicekit.auth.api_keys import API_KEY_PREFIX, ApiKeys, VerifyApiKey
from servicekit.auth.credentials import access_cookie, bearer, credential_headers, origin_of
from servicekit.auth.errors import CROSS_ORIGIN, unauthenticated
from servicekit.auth.memberships import MembershipDirectory
from servicekit.auth.principal import NO_MEMBERSHIPS, Memberships, Principal, PrincipalType, machine_memberships
from servicekit.auth.revocations import Revocations
from servicekit.auth.tokens import TokenVerifier, VerifiedToken
from servicekit.ports import Part

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class Authenticator:
    """Authenticates HTTP requests, WebSockets and service tokens.

    `allowed_origins`: origins (`scheme://host[:port]`) whose pages may change things with the cookie.
    """

    def __init__(
        self,
        verifier: TokenVerifier,
        memberships: MembershipDirectory,
        revocations: Revocations,
        *,
        verify_api_key: VerifyApiKey | None = None,
        allowed_origins: Sequence[str] = (),
        companions: Sequence[Part] = (),
        clock: Callable[[], float],
    ) -> None:
        self.verifier = verifier
        self.memberships = memberships
        self.revocations = revocations
        self._origins = frozenset(filter(None, map(origin_of, allowed_origins)))
        self._companions = tuple(companions)
        self._clock = clock
        self._api_keys = ApiKeys(verify_api_key, revocations, clock)

    async def start(self) -> None:
        """Starts the feed of revocations and membership changes."""
        for companion in self._companions:
            await companion.start()

    async def close(self) -> None:
        """Stops it."""
        for companion in reversed(self._companions):
            await companion.close()
        await self.verifier.keys.close()

    def on_revoked(self, callback: Callable[[str, str], None]) -> None:
        """`callback(principal_type, principal_id)` after a revocation reached this process; type `session` too."""
        self.revocations.on_revoked(callback)

    def on_memberships_changed(self, callback: Callable[[str], None]) -> None:
        """`callback(user_id)` after a change of that user's memberships reached this process."""
        self.memberships.on_changed(callback)

    async def authenticate(self, scope: Mapping[str, Any]) -> Principal | None:
        """The principal of an ASGI scope with its memberships; None when no credential was presented.

        Bearer first, then `X-API-Key`, then the cookie. Raises `auth.unauthenticated` (401) for a bad credential,
        `auth.cross_origin` (403) for an unsafe method by cookie from elsewhere, `auth.keys_unavailable` (503).
        """
        authorization, cookie, api_key = credential_headers(scope["headers"])
        if authorization is not None:
            return await self.authenticate_credential(bearer(authorization))
        if api_key is not None:
            return await self._authenticate_api_key(api_key.decode("latin-1").strip())
        token = access_cookie(cookie) if cookie is not None else None
        if token is None:
            return None
        if scope.get("method", "GET") not in SAFE_METHODS:
            self.check_origin(scope)
        return await self.authenticate_token(token)

    async def authenticate_websocket(self, websocket: Any) -> Principal:
        """The principal of a WebSocket: `?token=`, `Authorization`, or the cookie with an allowed Origin.

        Raises `auth.unauthenticated` for none or a bad one; call it before `accept`, or accept and close with 4401.
        """
        scope = websocket.scope
        token = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token")
        if token:
            return await self.authenticate_credential(token[0])
        authorization, cookie, api_key = credential_headers(scope["headers"])
        if authorization is not None:
            return await self.authenticate_credential(bearer(authorization))
        if api_key is not None:
            return await self._authenticate_api_key(api_key.decode("latin-1").strip())
        access = access_cookie(cookie) if cookie is not None else None
        if access is None:
            raise unauthenticated()
        self.check_origin(scope)
        return await self.authenticate_token(access)

    async def authenticate_credential(self, credential: str) -> Principal:
        """The principal of a token or API key. Raises `auth.unauthenticated` (401)."""
        if credential.startswith(API_KEY_PREFIX):
            return await self._authenticate_api_key(credential)
        return await self.authenticate_token(credential)

    async def authenticate_token(self, token: str) -> Principal:
        """The principal of an access token with its memberships. Raises `auth.unauthenticated` (401)."""
        verified = await self.verify_token(token)
        if verified.type is PrincipalType.USER:
            memberships = self.memberships.cached(verified.subject)
            if memberships is None:
                memberships = await self.memberships.of(verified.subject)
        else:
            memberships = machine_memberships(verified.type, verified.claims)
        return Principal(
            type=verified.type,
            id=verified.subject,
            session_id=verified.session_id,
            is_super_admin=verified.is_super_admin,
            token_id=verified.token_id,
            expires_at=verified.expires_at,
            issued_at=verified.issued_at,
            claims=verified.claims,
            memberships=memberships,
        )

    async def verify_token(self, token: str) -> VerifiedToken:
        """A valid token that was not revoked. Raises `auth.unauthenticated` (401)."""
        verified = await self.verifier.verify(token)
        if self._revoked(verified):
            raise unauthenticated()
        return verified

    async def authenticate_service(self, token: str) -> str:
        """The name of the service whose token this is. Raises `auth.unauthenticated` for any other token."""
        verified = await self.verify_token(token)
        if verified.type is not PrincipalType.SERVICE:
            raise unauthenticated()
        return verified.subject

    async def refresh(self, principal: Principal) -> Principal | None:
        """Asks identity once for the memberships; the principal to try again with, None when nothing changed.

        Raises `auth.memberships_unavailable` (503) when identity cannot be asked.
        """
        user_id = principal.member_id
        if user_id is None:
            return None
        organization_id = principal.claims.get("organization_id") if principal.owner_id is not None else None
        known = self.memberships.cached(user_id) if organization_id is not None else principal.memberships
        changed = await self.memberships.refreshed(user_id, known or NO_MEMBERSHIPS)
        if changed is None:
            return None
        return replace(principal, memberships=_limited(changed, organization_id))

    def check_origin(self, scope: Mapping[str, Any]) -> None:
        """Raises `auth.cross_origin` (403) unless the request comes from a page of ours.

        An `Origin` must be an allowed one. Without it, `Sec-Fetch-Site` must say same-origin or same-site.
        """
        origin = site = None
        for name, value in scope["headers"]:
            if name == b"origin":
                origin = value.decode("latin-1")
            elif name == b"sec-fetch-site":
                site = value
        if origin is not None:
            if origin_of(origin) not in self._origins:
                raise CROSS_ORIGIN()
        elif site not in (b"same-origin", b"same-site"):
            raise CROSS_ORIGIN()

    def is_current(self, principal: Principal) -> bool:
        """Whether the credential behind a principal still stands: not expired, not revoked."""
        if principal.expires_at is not None and principal.expires_at <= self._clock():
            return False
        issued_at = principal.issued_at or 0.0
        if principal.session_id is not None and self.revocations.session_revoked(principal.session_id):
            return False
        if principal.owner_id is not None and self.revocations.is_revoked("user", principal.owner_id, issued_at):
            return False
        agent_id = principal.claims.get("agent") if principal.type is PrincipalType.SANDBOX else None
        if isinstance(agent_id, str) and self.revocations.is_revoked("agent", agent_id, issued_at):
            return False
        return not self.revocations.is_revoked(principal.type.value, principal.id, issued_at)

    def _revoked(self, verified: VerifiedToken) -> bool:
        revocations = self.revocations
        if verified.session_id is not None and revocations.session_revoked(verified.session_id):
            return True
        if revocations.is_revoked(verified.type.value, verified.subject, verified.issued_at):
            return True
        if verified.type is PrincipalType.SANDBOX:
            # A sandbox acts for its agent and ends with it.
            agent_id = verified.claims.get("agent")
            return isinstance(agent_id, str) and revocations.is_revoked("agent", agent_id, verified.issued_at)
        return False

    async def _authenticate_api_key(self, key: str) -> Principal:
        known = await self._api_keys.verified(key)
        memberships = await self.memberships.of(known.user_id)
        return Principal(
            type=PrincipalType.API_KEY,
            id=known.key_id,
            expires_at=known.expires_at,
            issued_at=self._clock(),
            claims={"organization_id": known.organization_id},
            memberships=_limited(memberships, known.organization_id),
            scopes=known.scopes,
            owner_id=known.user_id,
        )


def _limited(memberships: Memberships, organization_id: str | None) -> Memberships:
    if organization_id is None:
        return memberships
    membership = memberships.get(organization_id)
    return NO_MEMBERSHIPS if membership is None else {organization_id: membership}
