"""Pure rules of merges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vcs_service.mirror.rules import branch_problem, is_sha

MAX_ITEMS = 500
MAX_TRIES = 5


def problem_of(target_branch: str, items: Sequence[dict[str, Any]]) -> tuple[str | tuple[str | int, ...], str] | None:
    """(field, what is wrong) of a merge that cannot be carried out, None when it can."""
    if (problem := branch_problem(target_branch)) is not None:
        return "target_branch", problem
    if not 1 <= len(items) <= MAX_ITEMS:
        return "items", f"must be 1 to {MAX_ITEMS}"
    seen: set[str] = set()
    for index, item in enumerate(items):
        if not item["task_id"] or item["task_id"] in seen:
            return ("items", index, "task_id"), "is needed, each once"
        seen.add(item["task_id"])
    return None


def item_problem(item: dict[str, Any]) -> str | None:
    """Why one branch of a merge cannot be merged, None when it can be tried; the other branches go on.

    Without a commit the branch is merged as it stands.
    """
    if item["head_sha"] and not is_sha(item["head_sha"]):
        return f"{item['head_sha'][:100]!r} is not a full commit id."
    if (problem := branch_problem(item["branch"])) is not None:
        return f"The branch {item['branch'][:200]!r} {problem}."
    return None


def remaining(items: Sequence[dict[str, Any]], outcomes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items without an outcome, in their order."""
    done = {outcome["task_id"] for outcome in outcomes}
    return [item for item in items if item["task_id"] not in done]


def message_of(item: dict[str, Any], target_branch: str) -> str:
    """The message of a merge commit, with trailers that name task and ticket."""
    return (
        f"Merge {item['branch']} into {target_branch}\n\n"
        f"OmoiOS-Task: {item['task_id']}\nOmoiOS-Ticket: {item['ticket_id']}\n"
    )
