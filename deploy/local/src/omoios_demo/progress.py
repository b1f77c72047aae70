"""How the work stands: the tasks as the API lists them, and what live events say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omoios_demo.api import Api
from omoios_demo.screen import Screen, TaskLine

PAGE = 500
# What plain output shows of the events; the picture on a terminal shows all of them.
LOUD = (
    *("TASK_STARTED", "TASK_COMPLETED", "TASK_FAILED", "TASK_RETRY_SCHEDULED", "TASK_CANCELLED"),
    *("SPEC_EXECUTION_", "branch.merged", "branch.conflicted", "billing.reservation.", "alert."),
)


class Progress:
    """Follows the tasks of one spec and shows them."""

    def __init__(self, api: Api, screen: Screen) -> None:
        self._api = api
        self._screen = screen
        self._attempts: dict[str, int] = {}
        self._failures: dict[str, str] = {}

    def tasks(self, spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The tasks of the spec's project, oldest first; those that resolve a conflict are among them."""
        found: list[Mapping[str, Any]] = []
        while True:
            page = self._api.get("/tasks", project_id=spec["project_id"], limit=PAGE, offset=len(found))
            found += page
            if len(page) < PAGE:
                return found[::-1]

    def show(self, spec: Mapping[str, Any], tasks: list[Mapping[str, Any]]) -> None:
        by_id = {task["id"]: task for task in tasks}
        planned = {task["task_id"] for task in spec["tasks"]}
        keys = {task["id"]: task["local_id"] or task["id"][-8:] for task in spec["tasks"]}
        lines = []
        for task in spec["tasks"]:
            needs = [keys.get(other, other) for other in task["dependencies"]]
            lines.append(self._line(keys[task["id"]], task["title"], by_id.get(task["task_id"]), needs))
        lines += [self._line(task["id"][-8:], task["title"], task, []) for task in tasks if task["id"] not in planned]
        self._screen.tasks(lines)

    def _line(self, key: str, title: str, task: Mapping[str, Any] | None, needs: list[str]) -> TaskLine:
        task_id = task["id"] if task else ""
        failure = self._failures.get(task_id, "")
        state = state_of(task)
        if state == "waiting" and failure:
            state = "retry"
        return TaskLine(key, title, state, self._attempts.get(task_id, 0), needs, failure if state == "retry" else "")

    def event(self, frame: Mapping[str, Any]) -> None:
        """Show a live event; attempts and failures are known from events only. Called in the listener's thread."""
        name, payload = str(frame["event_type"]), frame.get("payload") or {}
        if name == "TASK_ASSIGNED":
            self._attempts[str(frame["entity_id"])] = int(payload.get("attempt") or 0)
        elif name == "TASK_RETRY_SCHEDULED":
            reason = str(payload.get("error_message") or "it failed")
            # What follows the colon is the command itself, which the plan shows.
            self._failures[str(frame["entity_id"])] = reason.splitlines()[0].partition(": ")[0]
        self._screen.event(f"{name} {headline(payload)}".rstrip(), loud=name.startswith(LOUD))

    def why(self, tasks: list[Mapping[str, Any]]) -> str:
        """The tasks that did not end well, each with its error and the last lines that its sandbox said."""
        said: list[str] = []
        for task in tasks:
            if state_of(task) in ("completed", "waiting"):
                continue
            error = str(task["error_message"] or "").splitlines()
            said.append(f"{task['title']}: {task['status']} after {task['attempt']} attempt(s): {' '.join(error[:1])}")
            if task["sandbox_id"]:
                events = self._api.get(f"/sandboxes/{task['sandbox_id']}/events", limit=15, event_type="agent.output")
                said += [f"    {event['event_data'].get('line', '')}" for event in reversed(events["events"])]
        return "\n".join(said)


def state_of(task: Mapping[str, Any] | None) -> str:
    """The state of a task as the screen names it."""
    if task is None:
        return "waiting"
    status, merge = task["status"], task["merge_state"]
    if status == "completed":
        return {"pending": "merging", "conflicted": "conflict", "failed": "merge failed"}.get(merge, "completed")
    if status == "pending":
        return "waiting"
    return "running" if status in ("claiming", "assigned", "running") else str(status)


def headline(payload: Mapping[str, Any]) -> str:
    """What a frame is about in a few words."""
    for name in ("line", "title", "task_title", "branch", "message", "reason"):
        text = payload.get(name)
        if isinstance(text, str) and text:
            return text[:120]
    command = payload.get("input")
    if isinstance(command, Mapping) and isinstance(command.get("command"), str):
        return str(command["command"]).splitlines()[0][:120]
    return ""


def still_open(tasks: Sequence[Mapping[str, Any]]) -> list[str]:
    """The tasks that are not done, in words."""
    return [f"{task['title']} ({state_of(task)})" for task in tasks if state_of(task) != "completed"]


def merged_by_themselves(tasks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The tasks whose own branch was merged; where it conflicted, the branch of a further task was merged instead."""
    return [task for task in tasks if task["merge_state"] == "merged" and not task["resolution_task_id"]]
