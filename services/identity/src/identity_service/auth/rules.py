"""Pure rules of passwords and addresses."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from servicekit.errors import invalid

PASSWORD_MIN = 8
PASSWORD_MAX = 100
SPECIAL = "!@#$%^&*(),.?\":{}|<>[]\\~`_+-=/;'"
_REFRESH_COOKIE_AGE_S = 7 * 24 * 3600
API_KEY_PREFIX = "omk_"
# Twelve characters tell keys apart and show four of the secret's 43.
API_KEY_SHOWN = 12

# Attribute keys that only the sign-in with providers may write.
_RESERVED_SUFFIXES = ("_access_token", "_refresh_token", "_client_secret", "_user_id")
ATTRIBUTES_MAX_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Cookie:
    """A cookie of a signed-in browser. `hidden`: scripts cannot read it."""

    name: str
    value: str
    max_age_s: int
    hidden: bool


def session_cookies(access_token: str, refresh_token: str, expires_in_s: int) -> tuple[Cookie, ...]:
    """The contract's three cookies."""
    return (
        Cookie("omoios_access_token", access_token, expires_in_s, True),
        Cookie("omoios_refresh_token", refresh_token, _REFRESH_COOKIE_AGE_S, True),
        Cookie("omoios_auth_state", "true", _REFRESH_COOKIE_AGE_S, False),
    )


def password_problem(password: str) -> str | None:
    """What is wrong with a new password; None when it may be used."""
    if not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
        return f"must have {PASSWORD_MIN} to {PASSWORD_MAX} characters"
    if not any(character.isupper() for character in password):
        return "must contain an upper-case letter"
    if not any(character.islower() for character in password):
        return "must contain a lower-case letter"
    if not any(character.isdigit() for character in password):
        return "must contain a digit"
    if not any(character in SPECIAL for character in password):
        return "must contain a special character"
    return None


def contains_own_name(password: str, email: str) -> bool:
    """Whether the password is little more than the local part of the address."""
    local = email.partition("@")[0].lower()
    return len(local) >= 4 and local in password.lower() and len(password) < len(local) + 4


def normal_email(email: str) -> str:
    """The form in which addresses are compared: lower case, without spaces around."""
    return email.strip().lower()


def reserved_attributes(attributes: Mapping[str, object]) -> list[str]:
    """The keys that a user may not write himself."""
    return sorted(key for key in attributes if key.endswith(_RESERVED_SUFFIXES))


def visible_attributes(attributes: dict[str, object] | None) -> dict[str, object] | None:
    """The attributes without what must never be shown."""
    if attributes is None:
        return None
    return {key: value for key, value in attributes.items() if not key.endswith(_RESERVED_SUFFIXES)}


def merged_attributes(current: Mapping[str, Any] | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes after a change; null removes a key. Raises 422 for reserved keys and for too much."""
    refused = reserved_attributes(changes)
    if refused:
        raise invalid(("attributes", refused[0]), "is reserved")
    merged = {key: value for key, value in {**(current or {}), **changes}.items() if value is not None}
    if len(json.dumps(merged)) > ATTRIBUTES_MAX_BYTES:
        raise invalid("attributes", f"must not exceed {ATTRIBUTES_MAX_BYTES} bytes as JSON")
    return merged


def new_api_key() -> str:
    """A new secret key: prefix and 43 url-safe characters (256 bits)."""
    return API_KEY_PREFIX + secrets.token_urlsafe(32)


def new_account_secret() -> str:
    """A new secret for a mailed link: 43 url-safe characters (256 bits)."""
    return secrets.token_urlsafe(32)


def digest_of(secret: str) -> bytes:
    """SHA-256: enough for secrets of 256 random bits, which nobody can guess."""
    return hashlib.sha256(secret.encode()).digest()
