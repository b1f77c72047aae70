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


def merge_message(ticket_id: str, title: str, branch: str, method: str) -> str:
    """The message of the commit that brings a ticket's branch into its target."""
    subject = " ".join(title.split()) if method == "squash" else f"Merge {branch}"
    return f"[{ticket_id}] {subject}\n\nOmoiOS-Ticket: {ticket_id}\n"
