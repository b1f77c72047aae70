"""Locks that a dead git left behind.

A lock of git's is held while a file is rewritten, for milliseconds. A git that died with its machine leaves it behind,
and nothing could be written there again.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from pathlib import Path

import structlog

STALE_LOCK_S = 20.0
GUARD = "omoios-unlock"
GUARD_WAIT_S = 2.0
GUARD_POLL_S = 0.02
_LOCKED = re.compile(r"Unable to create '([^']+\.lock)': File exists")

_log = structlog.get_logger(__name__)


def names_a_lock(complaint: str) -> bool:
    """Whether git failed because a lock is held."""
    return _LOCKED.search(complaint) is not None


def clear_stale(repository: Path, complaint: str) -> bool:
    """Remove the lock of `repository` that git complains of, where nobody alive can hold it any more.

    True: there is no lock now, and asking git again makes sense. One process at a time looks and removes, whichever
    instance it belongs to: another one would take away the lock that a git made after the first removal.
    """
    found = _LOCKED.search(complaint)
    if found is None:
        return False
    lock = Path(found.group(1))
    if not lock.resolve().is_relative_to(repository.resolve()):
        return False
    try:
        guard = os.open(repository / GUARD, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        if not _alone(guard):
            return False
        # Both times are of the file system's clock, so that no process whose own clock is wrong takes a lock for old.
        os.utime(guard)
        if os.fstat(guard).st_mtime - lock.stat().st_mtime < STALE_LOCK_S:
            return False
        lock.unlink()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    finally:
        os.close(guard)
    _log.warning("stale_lock_removed", path=str(lock))
    return True


def _alone(guard: int) -> bool:
    deadline = time.monotonic() + GUARD_WAIT_S
    while True:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(GUARD_POLL_S)
        else:
            return True
