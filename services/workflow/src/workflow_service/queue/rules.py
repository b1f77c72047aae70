"""The queue's decisions: task states, fencing, retries, scores, and why a task does not run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, IntFlag

PENDING = "pending"
CLAIMING = "claiming"
ASSIGNED = "assigned"
RUNNING = "running"
PENDING_VALIDATION = "pending_validation"
VALIDATING = "validating"
NEEDS_REVISION = "needs_revision"
COMPLETED = "completed"
FAILED = "failed"
CANCELLED = "cancelled"

LEASED = (ASSIGNED, RUNNING)
"""States in which an attempt holds a lease."""
ACTIVE = (CLAIMING, ASSIGNED, RUNNING, VALIDATING)
"""States that count against the limits of project and organization."""
ENDED = (COMPLETED, FAILED, CANCELLED)

MOVES: Mapping[str, tuple[str, ...]] = {
    PENDING: (CLAIMING, ASSIGNED, CANCELLED, FAILED),
    CLAIMING: (ASSIGNED, PENDING, FAILED, CANCELLED),
    ASSIGNED: (RUNNING, PENDING, COMPLETED, FAILED, CANCELLED),
    RUNNING: (COMPLETED, FAILED, PENDING, PENDING_VALIDATION, CANCELLED),
    PENDING_VALIDATION: (VALIDATING, FAILED, CANCELLED),
    VALIDATING: (RUNNING, COMPLETED, NEEDS_REVISION, PENDING_VALIDATION, FAILED, CANCELLED),
    NEEDS_REVISION: (PENDING, CANCELLED, FAILED),
    COMPLETED: (),
    FAILED: (PENDING,),
    CANCELLED: (PENDING,),
}

MERGE_NONE = "none"
MERGE_PENDING = "pending"
MERGE_MERGED = "merged"
MERGE_CONFLICTED = "conflicted"
MERGE_FAILED = "failed"

TICKET_TARGET = "ticket/"
"""How the branch begins that holds the merged work of a ticket; its id follows."""

REMEDIATION = "remediation"
"""The type of a task that removes what blocks its ticket."""

MAX_LEASE_S = 600
DEFAULT_LEASE_S = 60
MIN_LEASE_S = 10


class Hold(IntFlag):
    """Reasons outside the task for which it may not be claimed; a task is claimable only when no bit is set."""

    SPEC_NOT_EXECUTING = 1
    SPEC_PAUSED = 2
    TICKET_NOT_APPROVED = 4
    TICKET_BLOCKED = 8
    NOT_AUTONOMOUS = 16
    DEPENDENCY_FAILED = 32
    PROJECT_NOT_ACTIVE = 64
    TICKET_WAITS = 128
    REPOSITORY_NOT_READY = 256
    SPEC_ARCHIVED = 512


HOLD_TEXT: Mapping[Hold, tuple[str, str]] = {
    Hold.SPEC_NOT_EXECUTING: ("spec_not_executing", "The spec of this task is not being executed."),
    Hold.SPEC_PAUSED: ("spec_paused", "The execution of the spec is paused."),
    Hold.TICKET_NOT_APPROVED: ("ticket_not_approved", "The ticket is not approved."),
    Hold.TICKET_BLOCKED: ("ticket_blocked", "The ticket is blocked."),
    Hold.NOT_AUTONOMOUS: ("not_autonomous", "The project does not execute autonomously and the task is not forced."),
    Hold.DEPENDENCY_FAILED: ("dependency_failed", "Something this task depends on failed or was cancelled."),
    Hold.PROJECT_NOT_ACTIVE: ("project_not_active", "The project is paused, completed or archived."),
    Hold.TICKET_WAITS: ("ticket_waits", "The ticket waits for another ticket to be done."),
    Hold.SPEC_ARCHIVED: ("spec_archived", "The spec that the ticket belongs to is archived."),
    Hold.REPOSITORY_NOT_READY: ("repository_not_ready", "The project's repository is not ready."),
}


_SHA = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def attempt_branch(task_id: str, attempt: int) -> str:
    """The branch that vcs gives to an attempt at a task."""
    return f"omoios-tasks/{task_id}/{attempt}"


def reported_head(own_branch: str, branch: object, head_sha: object) -> str:
    """The commit that a worker says it pushed to the branch of its attempt.

    Empty where it names none, another branch, or what is no full commit id: vcs knows where the branch stands.
    """
    if branch not in (None, "", own_branch) or not isinstance(head_sha, str):
        return ""
    return head_sha if _SHA.fullmatch(head_sha) else ""


def repository_problem(state: str, error: str | None) -> str | None:
    """Why a project's repository cannot be used unless someone acts, None where it can or may become so by itself."""
    if state != "failed":
        return None
    return (
        f"The project's repository could not be mirrored: {(error or 'unknown reason').rstrip('.')}."
        " Naming its repository_url again has it tried again."
    )


class Attempt(Enum):
    """What an attempt is told about its hold on the task."""

    HELD = "held"
    LOST = "lost"
    CANCELLED = "cancelled"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Lease:
    """Who holds a task now. `expired`: by the database's clock."""

    status: str
    attempt: int
    sandbox_id: str | None
    expired: bool = False


def may_move(status: str, target: str) -> bool:
    """Whether a task may go from one state to the other."""
    return target in MOVES.get(status, ())


def attempt_state(lease: Lease, attempt: int, sandbox_id: str) -> Attempt:
    """Whether this attempt in this sandbox still holds the task.

    An expired lease that nobody has taken back is still held: the attempt is the newest, and renewing it is safe.
    """
    if lease.attempt != attempt or (lease.sandbox_id or "") != sandbox_id:
        return Attempt.CANCELLED if lease.status == CANCELLED and lease.attempt == attempt else Attempt.LOST
    if lease.status in LEASED:
        return Attempt.HELD
    if lease.status == CANCELLED:
        return Attempt.CANCELLED
    return Attempt.ENDED if lease.status in ENDED else Attempt.LOST


def lease_seconds(wanted: int) -> int:
    """The lease to give: 0 means 60 s, otherwise between 10 and 600 s."""
    return DEFAULT_LEASE_S if wanted <= 0 else min(max(wanted, MIN_LEASE_S), MAX_LEASE_S)


PERMANENT = (
    "permission denied", "access denied", "authentication failed", "authorization failed", "syntax error",
    "invalid argument", "not found", "does not exist", "already exists", "duplicate key", "constraint violation",
    "immutable", "read-only", "quota exceeded", "rate limit exceeded",
)  # fmt: skip
BACKOFF_BASE_S = 1.0
BACKOFF_CAP_S = 60.0


COMMAND_ENDED = ("command failed with exit code", "command ended by signal")
"""How the error of a task whose command did not succeed begins; the command's own text follows."""


def is_permanent(error: str) -> bool:
    """Whether trying again cannot help, by what the error says; an unknown error may be tried again."""
    lower = error.lower()
    # A command that mentions "not found" in its text says nothing about why it failed.
    if lower.startswith(COMMAND_ENDED):
        return False
    return any(text in lower for text in PERMANENT)


def backoff_s(retry_count: int, jitter: float) -> float:
    """Seconds to wait before retry number `retry_count` (from 0): 1 s · 2^n, times `jitter` of 0.75 to 1.25, ≤ 60 s."""
    if not 0.75 <= jitter <= 1.25:
        raise ValueError("jitter is a factor from 0.75 to 1.25")
    return min(BACKOFF_BASE_S * 2.0 ** min(retry_count, 10) * jitter, BACKOFF_CAP_S)


START_BACKOFF_CAP_S = 300.0


def start_backoff_s(failures: int, jitter: float) -> float:
    """Seconds before a task whose start failed `failures` times is handed out again: 2 s · 2^(n-1), ≤ 300 s."""
    if not 0.75 <= jitter <= 1.25:
        raise ValueError("jitter is a factor from 0.75 to 1.25")
    return min(BACKOFF_BASE_S * 2.0 ** min(failures, 20), START_BACKOFF_CAP_S) * jitter


RELEASE_FORGOTTEN_S = 300.0
"""An attempt that worked for so long before it gave its task back does not go round in circles."""


def releases_in_row(before: int, held_s: float) -> int:
    """How often a task was given back in a row, when an attempt gives it back that held it for `held_s` seconds."""
    return 1 if held_s >= RELEASE_FORGOTTEN_S else before + 1


def release_pause_s(releases: int, free: int, jitter: float) -> float:
    """Seconds before a task that was given back is handed out again: 0 the first `free` times, then as for starts."""
    return start_backoff_s(releases - free, jitter) if releases > free else 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """What follows a failed attempt. `delay_s` counts only with `retry`."""

    retry: bool
    delay_s: float = 0.0


def after_failure(retry_count: int, max_retries: int, error: str, *, permanent: bool, jitter: float) -> Failure:
    """Retry while retries are left, unless the attempt or its error says that this is permanent."""
    if permanent or retry_count >= max_retries or is_permanent(error):
        return Failure(False)
    return Failure(True, backoff_s(retry_count, jitter))


@dataclass(frozen=True, slots=True)
class ScoreWeights:
    """The weights and windows of the score. Windows in seconds."""

    priority: float = 0.45
    age: float = 0.20
    deadline: float = 0.15
    blocker: float = 0.15
    retry: float = 0.05
    age_ceiling_s: float = 3600.0
    urgency_window_s: float = 900.0
    starvation_s: float = 7200.0
    blocker_ceiling: int = 10
    urgency_factor: float = 1.25
    starvation_floor: float = 0.6


WEIGHTS = ScoreWeights()
PRIORITY_SCORE: Mapping[str, float] = {"CRITICAL": 1.0, "HIGH": 0.75, "MEDIUM": 0.5, "LOW": 0.25}
# The stored score is brought up to date in steps of this share of the age ceiling: 0.25 moves it by at most 0.05.
AGE_STEP = 0.25


@dataclass(frozen=True, slots=True)
class Scored:
    """What a score depends on. `dependents`: pending tasks that depend on this one."""

    priority: str
    created_at: datetime
    retry_count: int = 0
    max_retries: int = 3
    dependents: int = 0
    deadline_at: datetime | None = None


def score(task: Scored, now: datetime, weights: ScoreWeights = WEIGHTS) -> float:
    """The order in which ready tasks are handed out, the highest first; roughly 0 to 1.25."""
    age_s = max((now - task.created_at).total_seconds(), 0.0)
    slack_s = (task.deadline_at - now).total_seconds() if task.deadline_at else None
    age = min(age_s / weights.age_ceiling_s, 1.0)
    deadline = 0.0 if slack_s is None else 1.0 if slack_s <= 0 else max(0.0, 1.0 - slack_s / weights.urgency_window_s)
    value = (
        weights.priority * PRIORITY_SCORE.get(task.priority, 0.25)
        + weights.age * age
        + weights.deadline * deadline
        + weights.blocker * min(task.dependents / weights.blocker_ceiling, 1.0)
        + weights.retry * max(0.0, 1.0 - task.retry_count / max(task.max_retries, 1))
    )
    if slack_s is not None and 0 <= slack_s <= weights.urgency_window_s:
        value *= weights.urgency_factor
    if age_s >= weights.starvation_s:
        value = max(value, weights.starvation_floor)
    return value


def rescore_at(task: Scored, now: datetime, weights: ScoreWeights = WEIGHTS) -> datetime | None:
    """When the stored score is due again, None when time changes it no more.

    Age counts in four steps up to its ceiling, then once at the starvation limit; a deadline counts from its window
    on, every third of it, and once when it has passed. So a task is rescored about ten times in its life.
    """
    step_s = weights.age_ceiling_s * AGE_STEP
    moments = [task.created_at + timedelta(seconds=step_s * n) for n in range(1, int(1 / AGE_STEP) + 1)]
    moments.append(task.created_at + timedelta(seconds=weights.starvation_s))
    if task.deadline_at is not None:
        third = weights.urgency_window_s / 3
        moments += [task.deadline_at - timedelta(seconds=third * n) for n in range(1, 4)]
        # At the deadline itself the task still counts as urgent.
        moments.append(task.deadline_at + timedelta(milliseconds=1))
    later = [moment for moment in moments if moment > now]
    return min(later) if later else None


def ticket_target(ticket_id: str) -> str:
    """The branch into which the work of a ticket is merged whose tasks belong to no spec."""
    return f"{TICKET_TARGET}{ticket_id}"


def merge_retryable(status: str, merge_state: str, execution_id: str | None, resolution_task_id: str | None) -> bool:
    """Whether a branch that could not be merged may be tried again by itself; an execution tries its own again."""
    failed = status == COMPLETED and merge_state == MERGE_FAILED
    return failed and execution_id is None and resolution_task_id is None


def dependency_met(status: str, merge_state: str) -> bool:
    """Whether a task that others depend on lets them go: completed, and its branch merged or nothing to merge."""
    return status == COMPLETED and merge_state in (MERGE_NONE, MERGE_MERGED)


def dependency_lost(status: str, merge_state: str) -> bool:
    """Whether a task that others depend on can never let them go unless someone acts."""
    return status in (FAILED, CANCELLED) or (status == COMPLETED and merge_state == MERGE_FAILED)
