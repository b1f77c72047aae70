"""Decisions of the tasks' edge."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from workflow_service.queue import limits_rules
from workflow_service.queue.limits_rules import OrganizationLimits
from workflow_service.queue.rules import HOLD_TEXT, LEASED, PENDING, Hold


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason why a task does not run. `tasks`: ids it waits for, where it waits for tasks."""

    code: str
    detail: str
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a claim would look at. Caps of -1 mean no limit."""

    status: str
    holds: int
    waits_for: tuple[tuple[str, str, str, str], ...]
    not_before: datetime | None
    start_error: str | None
    releases: int
    now: datetime
    required_capabilities: tuple[str, ...]
    repository_error: str | None
    project_active: int
    project_cap: int
    organization_active: int
    organization: OrganizationLimits


def reasons(task: Surroundings) -> list[Reason]:
    """Every reason why the task is not running now; empty when the next claim may take it.

    `waits_for`: (id, title, status, merge state) of each unmet dependency.
    """
    if task.status in LEASED:
        return [Reason(task.status, f"The task is {task.status} in a sandbox.")]
    if task.status != PENDING:
        return [Reason(task.status, f"The task is {task.status}.")]
    found = [Reason(*HOLD_TEXT[hold]) for hold in Hold if task.holds & hold]
    if task.holds & Hold.REPOSITORY_NOT_READY and task.repository_error is not None:
        code = HOLD_TEXT[Hold.REPOSITORY_NOT_READY][0]
        found = [Reason(code, task.repository_error) if one.code == code else one for one in found]
    for task_id, title, status, merge_state in task.waits_for:
        state = f"its branch is {merge_state}" if status == "completed" else f"it is {status}"
        code = "dependency_not_merged" if status == "completed" else "dependency_not_completed"
        found.append(Reason(code, f"It depends on '{title}': {state}.", (task_id,)))
    if task.not_before is not None and task.not_before > task.now:
        seconds = (task.not_before - task.now).total_seconds()
        again = f"It is tried again in {seconds:.1f} s."
        if task.start_error is not None:
            found.append(Reason("start_failed", f"It could not be started: {task.start_error} {again}"))
        elif task.releases:
            found.append(Reason("released", f"It was given back {task.releases} times in a row. {again}"))
        else:
            found.append(Reason("backoff", again))
    if 0 <= task.project_cap <= task.project_active:
        detail = f"The project runs {task.project_active} of {task.project_cap} tasks at once."
        found.append(Reason("project_at_capacity", detail))
    full = limits_rules.at_capacity(task.organization, task.organization_active)
    if full is not None:
        found.append(Reason("organization_at_capacity", full))
    used_up = limits_rules.out_of_hours(task.organization)
    if used_up is not None:
        found.append(Reason("organization_out_of_hours", used_up))
    return found


def waiting_for(capabilities: tuple[str, ...]) -> str:
    """What a task that nothing holds waits for."""
    if capabilities:
        return f"It may be claimed by an agent with the capabilities {', '.join(sorted(capabilities))}."
    return "It may be claimed by any agent."
