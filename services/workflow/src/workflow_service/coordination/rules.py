"""Decisions about executions and merges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# A conflict may come up again while its resolution waits for its own merge; after so many the branch is given up.
MAX_RESOLUTIONS = 3
# A branch that cannot be merged for another reason than a conflict is asked for again so many times.
MAX_MERGE_TRIES = 3
# A merge without news for this long is asked after at vcs.
STUCK_S = 60.0

OPEN = ("running", "paused")
NOT_ENDED = ("pending", "claiming", "assigned", "running", "pending_validation", "validating", "needs_revision")


@dataclass(frozen=True, slots=True)
class Tally:
    """The tasks of an execution, each counted once.

    `open`: not ended, or its branch not merged yet. `stuck`: pending behind something that was lost. `lost`: failed,
    cancelled, or its branch could not be merged. `done`: completed and merged.
    """

    open: int
    stuck: int
    done: int
    failed: int
    cancelled: int

    @property
    def total(self) -> int:
        """All tasks."""
        return self.open + self.stuck + self.done + self.failed + self.cancelled


def tally(counts: Mapping[tuple[str, str, bool], int]) -> Tally:
    """Counts by (status, merge state, held by a lost dependency), summed up."""
    still_open = stuck = done = failed = cancelled = 0
    for (status, merge_state, held), number in counts.items():
        if status == "failed":
            failed += number
        elif status == "cancelled":
            cancelled += number
        elif status == "completed":
            if merge_state in ("none", "merged"):
                done += number
            elif merge_state == "failed":
                failed += number
            else:
                still_open += number
        elif status == "pending" and held:
            stuck += number
        else:
            still_open += number
    return Tally(still_open, stuck, done, failed, cancelled)


def outcome(found: Tally) -> str | None:
    """How an execution has ended: completed or failed; None while there is work that can go on."""
    if found.open:
        return None
    return "failed" if found.failed or found.stuck or found.cancelled else "completed"


def tried_again(old_status: str, status: str, merge_state: str) -> bool:
    """Whether a task that had ended without success goes on: itself, or the merge of its branch."""
    if status == "pending":
        return old_status in ("failed", "cancelled")
    return status == old_status == "completed" and merge_state == "pending"


def merge_delay_s(tries: int) -> float:
    """Seconds until a merge that vcs did not take is asked for again: 1 s · 2^n, at most 60 s."""
    return min(2.0 ** min(tries, 10), 60.0)


@dataclass(frozen=True, slots=True)
class Linked:
    """Commits of one task that were linked, and the lines that they add and remove."""

    task_id: str
    commits: int
    lines_added: int
    lines_removed: int


def by_task(commits: Iterable[tuple[str, int, int]]) -> list[Linked]:
    """(task, lines added, removed) of single commits, summed up by task; those of no task are left out."""
    found: dict[str, Linked] = {}
    for task_id, added, removed in commits:
        if task_id:
            old = found.get(task_id, Linked(task_id, 0, 0, 0))
            found[task_id] = Linked(task_id, old.commits + 1, old.lines_added + added, old.lines_removed + removed)
    return list(found.values())
