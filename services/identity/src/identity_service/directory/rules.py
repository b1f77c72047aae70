"""Pure rules of profiles: pictures, preferences, addresses of pictures."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import available_timezones

AVATAR_MAX_BYTES = 524_288
THEMES = ("system", "light", "dark")
PREFERENCES = ("timezone", "language", "theme")
"""Attribute keys that are preferences; web clients write them among the attributes, too."""
MAX_TASK_DURATION_MINUTES = 1_440
"""The longest time limit that workflow takes for a task."""


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


def hours_used(sandbox_ms: int, period_ends_at: datetime | None, now: datetime) -> float:
    """Hours of sandboxes in the current month; what was used in a month that is over does not count."""
    return round(sandbox_ms / 3_600_000, 4) if period_ends_at is not None and now < period_ends_at else 0.0


def resets_at(period_ends_at: datetime | None, now: datetime) -> datetime | None:
    """When the month that counts ends (UTC); None where the organization has no account yet."""
    if period_ends_at is None or now < period_ends_at:
        return period_ends_at
    year, month = (now.year + 1, 1) if now.month == 12 else (now.year, now.month + 1)
    return datetime(year, month, 1, tzinfo=UTC)


@lru_cache(maxsize=1)
def _timezones() -> frozenset[str]:
    return frozenset(available_timezones())


def is_timezone(name: str) -> bool:
    """Whether the IANA database knows the zone."""
    return name in _timezones()
