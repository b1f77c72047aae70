"""The chain: each entry's digest covers the entry, its position and the digest before it.

The digest is an HMAC under a key of the chain, which the database holds only encrypted: who can write to the database
alone can neither change an entry nor compute a chain that looks whole.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

START = b"\x00" * 32
"""What stands before the first entry of a chain."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as the chain sees it. `position` and `digest` are None before the sealing."""

    id: str
    action: str
    actor_type: str
    actor_id: str | None
    subject_id: str | None
    organization_id: str | None
    address: str | None
    details: Mapping[str, Any]
    created_at: datetime
    position: int | None = None
    digest: bytes | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """The last position of a chain and its digest."""

    position: int = 0
    digest: bytes = START


@dataclass(frozen=True, slots=True)
class Break:
    """The first place where a chain does not hold. `entry_id` is None where the entry itself is gone."""

    position: int
    entry_id: str | None
    reason: str


def digest_of(key: bytes, entry: Entry, position: int, before: bytes) -> bytes:
    """HMAC-SHA256 of an entry at a position, 32 bytes."""
    body = {
        "id": entry.id,
        "action": entry.action,
        "actor_type": entry.actor_type,
        "actor_id": entry.actor_id,
        "subject_id": entry.subject_id,
        "organization_id": entry.organization_id,
        "address": entry.address,
        "details": entry.details,
        "created_at": entry.created_at.astimezone(UTC).isoformat(timespec="microseconds"),
        "position": position,
        "before": before.hex(),
    }
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def seal(key: bytes, head: Head, entries: Iterable[Entry]) -> list[Head]:
    """The position and digest of each entry when they follow `head` in this order."""
    sealed: list[Head] = []
    for entry in entries:
        position = head.position + 1
        head = Head(position, digest_of(key, entry, position, head.digest))
        sealed.append(head)
    return sealed


def follow(key: bytes, head: Head, entries: Iterable[Entry]) -> Head | Break:
    """Walks sealed entries, ordered by position, from `head` on: the new head, or the first break."""
    for entry in entries:
        position = head.position + 1
        if entry.position != position:
            return Break(position, None, f"the entry is missing; {entry.id} follows at {entry.position}")
        expected = digest_of(key, entry, position, head.digest)
        if entry.digest is None or not hmac.compare_digest(entry.digest, expected):
            return Break(position, entry.id, "the entry was changed or moved")
        head = Head(position, expected)
    return head


def compare(reached: Head, recorded: Head) -> Break | None:
    """Whether a chain ends where its head says."""
    if reached.position < recorded.position:
        return Break(reached.position + 1, None, f"entries up to position {recorded.position} are missing at the end")
    if reached.position > recorded.position or reached.digest != recorded.digest:
        return Break(reached.position, None, "the chain's head was changed")
    return None
