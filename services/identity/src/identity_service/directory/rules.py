"""Pure rules of profiles: pictures, preferences, addresses of pictures."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from zoneinfo import available_timezones

AVATAR_MAX_BYTES = 524_288
THEMES = ("system", "light", "dark")
PREFERENCES = ("timezone", "language", "theme")
"""Attribute keys that are preferences; web clients write them among the attributes, too."""


def picture_type(content: bytes) -> str | None:
    """The media type of a PNG, JPEG, GIF or WebP by its first bytes; None for anything else, SVG included."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return None


def digest_of(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


@lru_cache(maxsize=1)
def _timezones() -> frozenset[str]:
    return frozenset(available_timezones())


def is_timezone(name: str) -> bool:
    """Whether the IANA database knows the zone."""
    return name in _timezones()
