"""A broken promise, and the tables of legal moves that the checker goes by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """`promise`: one of the invariants of the checker. `subject`: the operation, row or event."""

    promise: str
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.subject}: {self.detail}"


# Stated here once more on purpose: the checker must not ask the code that it judges.
TASK_MOVES = {
    "": {"pending"},
    "pending": {"claiming", "assigned", "cancelled", "failed"},
    "claiming": {"assigned", "pending", "failed", "cancelled"},
    "assigned": {"running", "pending", "completed", "failed", "cancelled"},
    "running": {"completed", "failed", "pending", "pending_validation", "cancelled"},
    "pending_validation": {"validating", "failed", "cancelled"},
    "validating": {"running", "completed", "needs_revision", "pending_validation", "failed", "cancelled"},
    "needs_revision": {"pending", "cancelled", "failed"},
    "completed": set(),
    "failed": {"pending"},
    "cancelled": {"pending"},
}
TICKET_MOVES = {
    "backlog": {"analyzing"},
    "analyzing": {"building"},
    "building": {"building-done"},
    "building-done": {"testing"},
    "testing": {"done", "building"},
    "done": set(),
}
TICKET_ORDER = ("backlog", "analyzing", "building", "building-done", "testing", "done")
# The workflow itself moves a ticket forward over steps, when its work begins and when all of it has ended.
BY_WORKFLOW = "workflow"
