"""A signing key and tokens for tests: the real verifier with a JWKS document that needs no network."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from joserfc import jwt
from joserfc.jwk import ECKey

from servicekit.auth.keys import FetchJwks, JwksCache
from servicekit.auth.replica import MembershipRow, RevocationRow, write_memberships, write_revocations
from servicekit.auth.tokens import ALGORITHM, TOKEN_TYPE, TokenVerifier
from servicekit.clock import utc_now
from servicekit.ids import new_id

if TYPE_CHECKING:
    from servicekit.db import Database

ISSUER = "omoios-identity"
AUDIENCE = "omoios-api"

ROLE_PERMISSIONS: Mapping[str, tuple[str, ...]] = {
    "owner": ("org:*", "project:*", "document:*", "ticket:*", "task:*", "agent:*", "billing:*", "monitor:*"),
    "admin": (
        *("org:read", "org:write", "org:members:*", "project:*", "document:*", "ticket:*", "task:*"),
        *("agent:read", "agent:write", "billing:read", "monitor:*"),
    ),
    "member": (
        *("org:read", "project:read", "project:write", "document:read", "document:write", "ticket:read"),
        *("ticket:write", "task:read", "task:write", "agent:read", "billing:read", "monitor:read"),
    ),
    "viewer": ("org:read", "project:read", "document:read", "ticket:read", "task:read", "agent:read", "monitor:read"),
}
"""What the roles of test memberships may do; identity's own table decides in a running system."""


class Signing:
    """One test key. `user`, `agent`, `sandbox` and `service` mint tokens; `fetch_jwks` is given to the authenticator.

    `db` is the database whose replica tables get the membership rows; without one (or with `organization_id=None`) a
    token is minted alone.
    """

    def __init__(self, db: Database | None = None, *, issuer: str = ISSUER, audience: str = AUDIENCE) -> None:
        self.db = db
        self.issuer = issuer
        self.audience = audience
        self.kid = "test-key-1"
        self.key = ECKey.generate_key("P-256", {"kid": self.kid, "alg": ALGORITHM, "use": "sig"}, private=True)
        self.fetches = 0

    @property
    def jwks(self) -> dict[str, Any]:
        """The JWKS document with the public key."""
        return {"keys": [self.key.as_dict(private=False)]}

    async def fetch_jwks(self) -> Mapping[str, Any]:
        """Stands for the request to identity; counts itself in `fetches`."""
        self.fetches += 1
        return self.jwks

    def verifier(self, fetch: FetchJwks | None = None) -> TokenVerifier:
        """A verifier of this key's tokens."""
        return TokenVerifier(JwksCache(fetch or self.fetch_jwks), issuer=self.issuer, audience=self.audience)

    def token(self, principal_type: str, subject: str, *, ttl_s: float = 900, **claims: Any) -> str:
        """An access token; `claims` are added, and a None removes one of the usual ones."""
        now = int(time.time())
        content: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": subject,
            "iat": now,
            "exp": now + int(ttl_s),
            "jti": new_id(),
            "pt": principal_type,
        } | claims
        return self.sign({name: value for name, value in content.items() if value is not None})

    def sign(self, claims: Mapping[str, Any], header: Mapping[str, Any] | None = None) -> str:
        """A JWT of these claims; `header` is merged over the right one."""
        merged = {"alg": ALGORITHM, "typ": TOKEN_TYPE, "kid": self.kid} | dict(header or {})
        return jwt.encode(merged, dict(claims), self.key, algorithms=[ALGORITHM])

    def user_token(self, user_id: str, *, session_id: str | None = None, super_admin: bool = False, **kw: Any) -> str:
        """A user's access token, without a membership row."""
        extra = {"sa": True} if super_admin else {}
        return self.token("user", user_id, sid=session_id or new_id(), **extra, **kw)

    async def user(
        self,
        user_id: str,
        organization_id: str | None = None,
        role: str = "owner",
        *,
        super_admin: bool = False,
        session_id: str | None = None,
        permissions: Sequence[str] | None = None,
        **kw: Any,
    ) -> str:
        """A user's access token, with a membership row in `organization_id` where one is given."""
        if organization_id is not None:
            await self.member(user_id, organization_id, role, permissions=permissions)
        return self.user_token(user_id, session_id=session_id, super_admin=super_admin, **kw)

    def agent(self, organization_id: str, agent_id: str, **kw: Any) -> str:
        """The token of a registered agent."""
        return self.token("agent", agent_id, org=organization_id, agent=agent_id, **kw)

    def sandbox(
        self, organization_id: str, sandbox_id: str, *, task_id: str, agent_id: str, attempt: int = 1, **kw: Any
    ) -> str:
        """The token of a sandbox that works on one attempt of one task."""
        claims: dict[str, Any] = {
            "org": organization_id,
            "agent": agent_id,
            "task": task_id,
            "sandbox": sandbox_id,
            "attempt": attempt,
        }
        return self.token("sandbox", sandbox_id, **claims, **kw)

    def service(self, name: str, **kw: Any) -> str:
        """The token with which service `name` calls others."""
        return self.token("service", name, **kw)

    async def member(
        self,
        user_id: str,
        organization_id: str,
        role: str = "owner",
        *,
        permissions: Sequence[str] | None = None,
        active: bool = True,
        version: int | None = None,
    ) -> None:
        """Writes a membership row as identity's event would; the version is the time unless given."""
        if self.db is None:
            raise RuntimeError("this Signing was made without a database")
        row = MembershipRow(
            user_id,
            organization_id,
            role,
            ROLE_PERMISSIONS.get(role, ()) if permissions is None else tuple(permissions),
            active,
            time.time_ns() if version is None else version,
        )
        async with self.db.uow() as tx:
            await write_memberships(tx, [row])

    async def revoke(self, principal_type: str, principal_id: str) -> None:
        """Writes a revocation of now as identity's event would."""
        if self.db is None:
            raise RuntimeError("this Signing was made without a database")
        async with self.db.uow() as tx:
            await write_revocations(tx, [RevocationRow(principal_type, principal_id, utc_now())])
