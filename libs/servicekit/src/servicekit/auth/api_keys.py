"""API keys: opaque, verified by identity, remembered for at most 30 s."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256

from servicekit.auth.bounded import BoundedCache
from servicekit.auth.errors import unauthenticated
from servicekit.auth.revocations import Revocations
from servicekit.auth.tokens import MAX_TOKEN_BYTES

API_KEY_PREFIX = "omk_"
API_KEY_TTL_S = 30.0
UNKNOWN_API_KEY_TTL_S = 5.0
API_KEYS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class VerifiedApiKey:
    """What identity says of an API key. `organization_id` None: it holds for all of the user's organizations."""

    key_id: str
    user_id: str
    scopes: frozenset[str]
    organization_id: str | None = None
    expires_at: float | None = None


VerifyApiKey = Callable[[str], Awaitable[VerifiedApiKey | None]]
"""API key → what identity says of it, None when there is no such key."""


@dataclass(frozen=True, slots=True)
class _Unknown:
    """A key that identity does not know."""


class ApiKeys:
    """The API keys seen lately. A revocation of the key or its user makes the next request ask identity again."""

    def __init__(self, verify: VerifyApiKey | None, revocations: Revocations, clock: Callable[[], float]) -> None:
        self._verify = verify
        self._revocations = revocations
        self._clock = clock
        self._known: BoundedCache[bytes, VerifiedApiKey | _Unknown] = BoundedCache(API_KEYS_MAX, API_KEY_TTL_S, clock)
        revocations.on_revoked(self._forget)

    async def verified(self, key: str) -> VerifiedApiKey:
        """Whose key it is.

        Raises `auth.unauthenticated` (401) for an unknown or expired one, UNAVAILABLE when identity cannot be asked.
        """
        if self._verify is None or len(key) > MAX_TOKEN_BYTES:
            raise unauthenticated()
        digest = sha256(key.encode("utf-8", "surrogatepass")).digest()
        known = self._known.get(digest)
        if known is None:
            asked_at = self._clock()
            known = await self._verify(key) or _Unknown()
            if isinstance(known, _Unknown):
                self._known.put(digest, known, UNKNOWN_API_KEY_TTL_S)
            elif not self._revoked_since(known, asked_at):
                self._known.put(digest, known)
        if isinstance(known, _Unknown) or (known.expires_at is not None and known.expires_at <= self._clock()):
            raise unauthenticated()
        return known

    def _revoked_since(self, key: VerifiedApiKey, moment: float) -> bool:
        """Whether a revocation arrived while identity was being asked: such an answer must not be remembered."""
        revocations = self._revocations
        return revocations.is_revoked("api_key", key.key_id, moment) or revocations.is_revoked(
            "user", key.user_id, moment
        )

    def _forget(self, principal_type: str, principal_id: str) -> None:
        if principal_type == "api_key":
            self._known.discard_where(lambda known: isinstance(known, VerifiedApiKey) and known.key_id == principal_id)
        elif principal_type == "user":
            self._known.discard_where(lambda known: isinstance(known, VerifiedApiKey) and known.user_id == principal_id)
