"""Verification of access tokens: ES256 JWTs of identity, checked locally.

Form is checked before content and content only after the signature: size, header (type, algorithm, no key smuggled in),
key, signature, then the claims. Every refusal is the same 401. A verified token is remembered for at most 30 s under
its SHA-256, which makes the usual request cost a digest and two lookups instead of a signature check.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError

from servicekit.auth.bounded import BoundedCache
from servicekit.auth.errors import unauthenticated
from servicekit.auth.keys import JwksCache
from servicekit.auth.principal import PrincipalType

MAX_TOKEN_BYTES = 4096
MAX_HEADER_BYTES = 512
LEEWAY_S = 60
"""Tolerated difference between this clock and identity's, seconds."""
MAX_LIFETIME_S = 24 * 3600
"""No token lives longer; revocations older than this concern none."""
VERIFIED_TTL_S = 30.0
VERIFIED_MAX = 20_000
ALGORITHM = "ES256"
TOKEN_TYPE = "at+jwt"
"""RFC 9068; a refresh token or any other JWT carries another type."""

_HEADER_NAMES = frozenset({"alg", "typ", "kid"})
_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_TYPES = {type_.value: type_ for type_ in PrincipalType if type_ is not PrincipalType.API_KEY}


@dataclass(frozen=True, slots=True, eq=False)
class VerifiedToken:
    """What a valid token says. Times are Unix seconds; `claims` is read-only."""

    type: PrincipalType
    subject: str
    session_id: str | None
    token_id: str | None
    issued_at: float
    expires_at: float
    is_super_admin: bool
    claims: Mapping[str, Any]


class InvalidToken(Exception):
    """Why a token was refused; never shown to the caller."""


class TokenVerifier:
    """Verifies tokens of one issuer for one audience.

    `clock` is the wall clock in Unix seconds. `verified_max` bounds the memory of remembered tokens.
    """

    def __init__(
        self,
        keys: JwksCache,
        *,
        issuer: str,
        audience: str,
        clock: Callable[[], float] = time.time,
        verified_ttl_s: float = VERIFIED_TTL_S,
        verified_max: int = VERIFIED_MAX,
    ) -> None:
        self.keys = keys
        self.issuer = issuer
        self.audience = audience
        self._clock = clock
        self._verified: BoundedCache[bytes, VerifiedToken] = BoundedCache(verified_max, verified_ttl_s, clock)

    async def verify(self, token: str) -> VerifiedToken:
        """The content of a valid token.

        Raises `auth.unauthenticated` (401, constant text) for every invalid one and `auth.keys_unavailable` (503) when
        the keys to judge it cannot be had.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise unauthenticated()
        digest = sha256(token.encode("utf-8", "surrogatepass")).digest()
        verified = self._verified.get(digest)
        if verified is None:
            try:
                verified = await self._check(token)
            except InvalidToken:
                raise unauthenticated() from None
            self._verified.put(digest, verified)
        if verified.expires_at + LEEWAY_S <= self._clock():
            raise unauthenticated()
        return verified

    async def _check(self, token: str) -> VerifiedToken:
        kid = check_header(token)
        key = await self.keys.key(kid)
        if key is None:
            raise InvalidToken("unknown key")
        try:
            payload = jws.deserialize_compact(token, key, algorithms=[ALGORITHM]).payload
            claims = json.loads(payload or b"")
        except (JoseError, ValueError, RecursionError) as error:
            raise InvalidToken("signature or payload") from error
        if not isinstance(claims, dict):
            raise InvalidToken("payload is not an object")
        return self._check_claims(claims)

    def _check_claims(self, claims: dict[str, Any]) -> VerifiedToken:
        now = self._clock()
        if claims.get("iss") != self.issuer:
            raise InvalidToken("issuer")
        audience = claims.get("aud")
        if audience != self.audience and not (isinstance(audience, list) and self.audience in audience):
            raise InvalidToken("audience")
        expires_at = _seconds(claims, "exp")
        issued_at = _seconds(claims, "iat")
        if expires_at + LEEWAY_S <= now:
            raise InvalidToken("expired")
        if issued_at > now + LEEWAY_S:
            raise InvalidToken("issued in the future")
        if expires_at <= issued_at or expires_at - issued_at > MAX_LIFETIME_S + LEEWAY_S:
            raise InvalidToken("lifetime")
        if "nbf" in claims and _seconds(claims, "nbf") > now + LEEWAY_S:
            raise InvalidToken("not yet valid")
        subject = _text(claims, "sub")
        type_ = _TYPES.get(_text(claims, "pt"))
        if type_ is None:
            raise InvalidToken("principal type")
        if type_ in (PrincipalType.AGENT, PrincipalType.SANDBOX):
            _text(claims, "org")
        return VerifiedToken(
            type=type_,
            subject=subject,
            session_id=_text(claims, "sid") if "sid" in claims else None,
            token_id=_text(claims, "jti") if "jti" in claims else None,
            issued_at=issued_at,
            expires_at=expires_at,
            is_super_admin=type_ is PrincipalType.USER and claims.get("sa") is True,
            claims=MappingProxyType(claims),
        )


def check_header(token: str) -> str:
    """The key id of a token whose form and header are acceptable.

    Only `alg`, `typ` and `kid` may stand in the header: `jwk`, `jku`, `x5u`, `x5c` would let the bearer bring the key
    along, and `crit` announces rules that nobody here knows. Raises `InvalidToken`.
    """
    if len(token) > MAX_TOKEN_BYTES or _SHAPE.fullmatch(token) is None:
        raise InvalidToken("form")
    segment = token.partition(".")[0]
    if len(segment) > MAX_HEADER_BYTES:
        raise InvalidToken("header size")
    try:
        header = json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise InvalidToken("header") from error
    if not isinstance(header, dict) or not header.keys() <= _HEADER_NAMES:
        raise InvalidToken("header members")
    if header.get("alg") != ALGORITHM:
        raise InvalidToken("algorithm")
    if header.get("typ") != TOKEN_TYPE:
        raise InvalidToken("type")
    kid = header.get("kid")
    if not isinstance(kid, str) or not kid:
        raise InvalidToken("key id")
    return kid


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidToken(name)
    # Also false for NaN and infinity; beyond 2**53 floats are no longer exact to the second.
    if not 0 <= value < 2**53:
        raise InvalidToken(name)
    return float(value)


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value or len(value) > 256:
        raise InvalidToken(name)
    return value
