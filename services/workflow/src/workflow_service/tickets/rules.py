"""Decisions of the tickets' edge."""

from __future__ import annotations

import hashlib

QUICK = "quick"
SPEC_DRIVEN = "spec_driven"
MODES = (QUICK, SPEC_DRIVEN)


def content_hash(title: str, description: str | None) -> str:
    """SHA-256 of the text in small letters with its blanks collapsed: equal for tickets that say the same."""
    text = f"{title}\n{description or ''}"
    return hashlib.sha256(" ".join(text.lower().split()).encode()).hexdigest()


def first_task(mode: str | None) -> tuple[str, dict[str, bool]]:
    """Type and configuration of the task that a new ticket begins with."""
    return ("implement_feature", {"force_execute": True}) if mode == QUICK else ("analyze_requirements", {})
