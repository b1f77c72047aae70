"""Pure rules of OAuth: whom a provider's profile belongs to, and where the browser goes afterwards."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

# The providers that clients always find listed, in this order; others follow as the settings name them.
LISTED = ("github", "google", "gitlab")
NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,49}$"

STATE_TTL_S = 600
# A token with less left is refreshed before it is handed out: its user has to get to the provider with it.
REFRESH_BEFORE_S = 60

_SECRET = re.compile(r"^[A-Za-z0-9_-]{43}$")


def new_secret() -> str:
    """43 url-safe characters (256 random bits): a state, a nonce, what binds a browser."""
    return secrets.token_urlsafe(32)


def is_secret(text: str | None) -> bool:
    """Whether the text looks like one of `new_secret`."""
    return text is not None and _SECRET.match(text) is not None


def digest_of(secret: str) -> bytes:
    """SHA-256: what is stored of a secret of 256 random bits."""
    return hashlib.sha256(secret.encode()).digest()


@dataclass(frozen=True, slots=True)
class Profile:
    """Who the provider says it is. `verified_email`: an address (lower case) that the provider vouches for."""

    provider_user_id: str
    verified_email: str | None = None
    username: str | None = None
    name: str | None = None
    avatar_url: str | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """What a provider gave: tokens, the access token's life in seconds (None: it does not expire), granted scopes."""

    access_token: str
    refresh_token: str | None = None
    expires_in_s: int | None = None
    scopes: tuple[str, ...] = ()


class SignIn(Enum):
    """What becomes of somebody who came back from a provider."""

    KNOWN = "known"  # The identity belongs to an account.
    LINK = "link"  # An account has this verified address.
    TAKE_OVER = "take_over"  # The same, but nobody ever proved that the account's address is his.
    CREATE = "create"
    DISABLED = "disabled"
    UNVERIFIED = "unverified"
    OTHER_IDENTITY = "other_identity"  # The account signs in with another account of that provider.


@dataclass(frozen=True, slots=True)
class Account:
    """What the decision needs of an account. `has_identity`: it is connected to the same provider already."""

    is_active: bool
    is_verified: bool
    has_identity: bool = False


def decide(*, owner: Account | None, identity_known: bool, by_email: Account | None, profile: Profile) -> SignIn:
    """The provider's id decides first, then a verified address, never an unverified one.

    `owner`: the account of the known identity, None where it was deleted. `by_email`: the account of the verified
    address, None where there is none.
    """
    if identity_known:
        return SignIn.KNOWN if owner is not None and owner.is_active else SignIn.DISABLED
    if profile.verified_email is None:
        return SignIn.UNVERIFIED
    if by_email is None:
        return SignIn.CREATE
    if not by_email.is_active:
        return SignIn.DISABLED
    if not by_email.is_verified:
        return SignIn.TAKE_OVER
    return SignIn.OTHER_IDENTITY if by_email.has_identity else SignIn.LINK


def callback_url(public_url: str, provider: str) -> str:
    """The one address that a provider sends browsers back to, for signing in and for connecting."""
    return f"{public_url.rstrip('/')}/api/v1/auth/oauth/{quote(provider, safe='')}/callback"


def location(front: str, query: Mapping[str, str] | None = None, fragment: Mapping[str, str] | None = None) -> str:
    """The web client's address with parameters added to its query, and tokens as its fragment."""
    parts = urlsplit(front)
    added = urlencode(query or {}, quote_via=quote)
    joined = "&".join(filter(None, (parts.query, added)))
    return urlunsplit((parts.scheme, parts.netloc, parts.path, joined, urlencode(fragment or {}, quote_via=quote)))


def verified_address(emails: list[Mapping[str, object]]) -> str | None:
    """From GitHub's list of addresses: the primary one if it is verified, else the first verified one."""
    verified = [entry for entry in emails if entry.get("verified") is True and isinstance(entry.get("email"), str)]
    best = next((entry for entry in verified if entry.get("primary") is True), verified[0] if verified else None)
    return normal_address(best["email"]) if best is not None else None


def normal_address(value: object) -> str | None:
    """A usable address in lower case, None for anything else."""
    if not isinstance(value, str):
        return None
    address = value.strip().lower()
    return address if 3 <= len(address) <= 255 and "@" in address[1:-1] and address.isprintable() else None


def text_or_none(value: object, limit: int) -> str | None:
    """A text of a provider's answer, cut to `limit` characters and without what a database refuses."""
    if not isinstance(value, str):
        return None
    return "".join(character for character in value if character.isprintable()).strip()[:limit] or None


def https_or_none(value: object) -> str | None:
    """An https address of at most 2048 characters, None for anything else."""
    text = text_or_none(value, 2049)
    return text if text is not None and text.startswith("https://") and len(text) <= 2048 else None
