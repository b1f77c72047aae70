"""Identifiers: UUID version 7 (RFC 9562), made in the application, text on the wire."""

from __future__ import annotations

import os
import threading
import time
from uuid import UUID

_MASK_74 = (1 << 74) - 1
_lock = threading.Lock()
_last_ms = 0
_last_random = 0


def uuid7() -> UUID:
    """A UUIDv7 that is greater than every one this process made before.

    48 bits are the milliseconds of the wall clock, 74 bits are random; within one millisecond (or when the
    clock steps back) the random part is counted up by a random step, so that the order stays and the next
    value cannot be guessed.
    """
    global _last_ms, _last_random
    now_ms = time.time_ns() // 1_000_000
    fresh = int.from_bytes(os.urandom(10), "big")
    with _lock:
        if now_ms > _last_ms:
            _last_ms, _last_random = now_ms, fresh & (_MASK_74 >> 1)
        else:
            _last_random += 1 + (fresh & 0xFFFFFFFF)
            if _last_random > _MASK_74:
                _last_ms, _last_random = _last_ms + 1, fresh & (_MASK_74 >> 1)
        ms, random = _last_ms, _last_random
    value = (ms << 80) | (0x7 << 76) | ((random >> 62) << 64) | (0b10 << 62) | (random & ((1 << 62) - 1))
    return UUID(int=value)


def new_id(prefix: str = "") -> str:
    """A new identifier as text, ``new_id("project-")`` with a prefix in front."""
    return prefix + str(uuid7())


def is_uuid(value: str) -> bool:
    """Whether ``value`` is the canonical text of a UUID (36 characters, lower or upper case)."""
    if len(value) != 36:
        return False
    try:
        return str(UUID(value)) == value.lower()
    except ValueError:
        return False
