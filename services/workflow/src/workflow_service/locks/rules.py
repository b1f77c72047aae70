"""What transactions of this service exclude each other for by advisory locks: every purpose, each with a class.

Whoever waits for one purpose must not wait for another. Class 0 is the kit's own (Idempotency-Key, leaders).
"""

from __future__ import annotations

from enum import IntEnum, unique


@unique
class LockClass(IntEnum):
    """The seed of the key's hash. A number is never given another purpose: two releases run side by side.

    Claims and changes of dependencies need not exclude each other. Both lock the task's row and look at it again
    under the lock: a claim leaves out a row that is being changed or has an unmet dependency by now, a change finds a
    task that was claimed and is refused.
    """

    EXECUTION = 7
    """Changes of several tasks of one execution, or of one ticket where they belong to no spec."""
    TASK_DEPENDENCIES = 8
    """New dependencies between tasks of one organization."""
    TICKET_DEPENDENCIES = 9
    """New dependencies between tickets of one organization."""
    CLAIMS = 10
    """Claims that count against the limits of one organization."""
    BOARD_COLUMN = 11
    """Tickets that enter one column of a project, which counts them."""


def advisory_lock(purpose: LockClass, key: str) -> str:
    """SQL that waits for the lock until the end of the transaction; `key` is SQL of type text."""
    return f"pg_advisory_xact_lock(hashtextextended({key}, {purpose:d}))"
