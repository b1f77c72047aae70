"""Pure rules of a ticket's branch."""

from __future__ import annotations

import re

SLUG_LENGTH = 25
PREFIXES = {
    "feature": "feature",
    "bug": "fix",
    "refactor": "refactor",
    "docs": "docs",
    "test": "test",
    "chore": "chore",
}
# Merges of single tickets go to branches of ours; the user's own branch names stay the user's.
TARGET_PREFIXES = ("omoios/", "ticket/")


def slug(title: str) -> str:
    """A title as part of a branch name: lower case, a-z, 0-9 and single hyphens, 25 characters at most."""
    words = re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
    return re.sub(r"-{2,}", "-", words)[:SLUG_LENGTH].strip("-")


def branch_name(ticket_id: str, title: str, ticket_type: str, priority: str | None) -> str:
    """`<prefix>/<ticket id>-<slug>`; a critical bug is a hotfix."""
    kind = ticket_type.lower()
    prefix = PREFIXES.get(kind, "feature")
    if kind == "bug" and (priority or "").lower() == "critical":
        prefix = "hotfix"
    tail = slug(title)
    return f"{prefix}/{ticket_id}-{tail}" if tail else f"{prefix}/{ticket_id}"


def target_problem(target: str) -> str | None:
    """Why a branch must not be merged into, None when it may be."""
    if not target.startswith(TARGET_PREFIXES):
        return f"must start with {' or '.join(TARGET_PREFIXES)}"
    return None
