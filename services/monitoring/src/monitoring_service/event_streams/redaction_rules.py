"""What never leaves in a frame: transcripts, secrets, and text nobody reads in a stream."""

from __future__ import annotations

import re
from typing import Any

REDACTED = "[redacted]"
TEXT_MAX = 10_000
"""Characters of one text in a frame; the whole of it stays with the service that owns it."""
ITEMS_MAX = 500
DEPTH_MAX = 12

_DROPPED = frozenset({"transcript_b64", "session_transcript_b64"})
_SECRET_NAME = re.compile(
    r"(?:^|[_\-.]|(?<=[a-z0-9]))"
    r"(?:pass(?:word|wd|phrase)|secret|token|(?:api|secret|private|access)[_-]?key|authorization|cookie|credentials?|jwt)$",
    re.IGNORECASE,
)
# The shapes of credentials of GitHub, GitLab, model providers, Slack, AWS, of our own keys, of JWTs and of PEM keys.
_SECRET_TEXT = re.compile(
    r"\bgh[pousr]_[A-Za-z0-9]{16,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}|\bsk-[\w-]{20,}|\bomk_[\w-]{8,}"
    r"|\bxox[abprs]-[\w-]{10,}|\bAKIA[0-9A-Z]{16}\b|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)
_URL_SECRET = re.compile(r"(?<=://)[^/\s@]+@")
_BEARER = re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]{16,}")


def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds a secret: `token` and `GITHUB_TOKEN` do, `input_tokens` does not."""
    return _SECRET_NAME.search(name) is not None


def public_text(text: str) -> str:
    """Text without credentials, at most 10,000 characters of it."""
    if len(text) > TEXT_MAX:
        # Cut after the search, so that the cut does not hide the end of a credential.
        text = text[: 2 * TEXT_MAX]
    if "://" in text:
        text = _URL_SECRET.sub(f"{REDACTED}@", text)
    text = _SECRET_TEXT.sub(REDACTED, text)
    if "earer" in text or "EARER" in text:
        text = _BEARER.sub(rf"\1{REDACTED}", text)
    return text if len(text) <= TEXT_MAX else text[:TEXT_MAX] + "…"


def public_value(value: Any, depth: int = 0) -> Any:
    """A JSON value without transcripts and secrets, bounded in depth, items and text."""
    if isinstance(value, str):
        return public_text(value)
    if isinstance(value, dict):
        if depth >= DEPTH_MAX:
            return "…"
        found: dict[str, Any] = {}
        for name, item in value.items():
            if name in _DROPPED:
                continue
            if isinstance(item, str | list | dict) and item and is_secret_name(name):
                found[name] = REDACTED
            else:
                found[name] = public_value(item, depth + 1)
        return found
    if isinstance(value, list):
        return "…" if depth >= DEPTH_MAX else [public_value(item, depth + 1) for item in value[:ITEMS_MAX]]
    return value
