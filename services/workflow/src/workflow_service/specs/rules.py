"""Decisions about specs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workflow_service.plans.model import Plan, PlannedTask

PHASES = ("Requirements", "Design", "Implementation", "Testing", "Done")
BRANCH_PREFIX = "omoios/"
SPEC_TASK_STATUSES = ("pending", "in_progress", "completed", "blocked")
SPEC_PRIORITIES = ("critical", "high", "medium", "low")

_TASK_PHASES = {"write_tests": "Testing", "run_tests": "Testing"}


@dataclass(frozen=True, slots=True)
class SpecState:
    """What the one `status` of existing clients is derived from."""

    generation_status: str
    execution_status: str
    requirements_approved: bool
    design_approved: bool
    pull_request: bool = False


def status_of(state: SpecState) -> str:
    """The status that existing clients read: draft, requirements, design, executing, completed, failed, cancelled,
    pr_created. A paused execution is still `executing`."""
    if state.execution_status in ("executing", "paused"):
        return "executing"
    if state.pull_request and state.execution_status == "completed":
        return "pr_created"
    if state.execution_status in ("completed", "failed", "cancelled"):
        return state.execution_status
    if state.generation_status == "failed":
        return "failed"
    if state.requirements_approved or state.design_approved:
        return "design"
    return "requirements" if state.generation_status == "generated" else "draft"


def slug(title: str, limit: int = 40) -> str:
    """A title as part of a branch name: small letters, digits and dashes; "spec" when nothing is left."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:limit].strip("-") or "spec"


def target_branch(title: str, spec_id: str, taken: Sequence[str]) -> str:
    """The branch that the work of a spec is merged into; with a part of its id where the plain name is taken."""
    branch = BRANCH_PREFIX + slug(title)
    return branch if branch not in taken else f"{branch}-{spec_id[-8:]}"


def requires_approval(settings: Mapping[str, Any] | None) -> bool:
    """Whether the project wants requirements and design approved before work begins."""
    options = (settings or {}).get("spec_driven_options")
    return isinstance(options, dict) and options.get("require_approval_gates") is True


def phase_of_task(task_type: str) -> str:
    """The human phase of a task of a plan."""
    return _TASK_PHASES.get(task_type, "Implementation")


def queue_phase(phase: str, title: str = "") -> tuple[str, str]:
    """Phase and type of the queue for a task of a spec: tests are written in testing, everything else implemented."""
    if "test" in phase.lower():
        return "PHASE_TESTING", "write_tests"
    return "PHASE_IMPLEMENTATION", "implement_feature"


def execution_config(task: PlannedTask) -> dict[str, Any]:
    """What the `command` engine is told of a task of a plan."""
    return {
        "engine": "command",
        "commands": list(task.commands),
        "files": list(task.files),
        "env": dict(task.environment),
        "needs_repository": True,
    }


def ticket_of(plan: Plan) -> dict[str, str | None]:
    """Task → requirement whose ticket it belongs to: the first that it names; None: the ticket of the rest."""
    return {task.key: task.requirements[0] if task.requirements else None for task in plan.tasks}


def phase_data(plan: Plan) -> dict[str, Any]:
    """A plan in the shape of the generated phases, so that both are read alike."""
    return {
        "requirements": {
            "feature_name": slug(plan.title),
            "requirements": [
                {
                    "id": item.key,
                    "title": item.title,
                    "text": f"WHEN {item.condition} THE SYSTEM SHALL {item.action}",
                    "acceptance_criteria": list(item.criteria),
                }
                for item in plan.requirements
            ],
        },
        "design": {"feature_name": slug(plan.title), "architecture_overview": plan.design},
        "tasks": {
            "feature_name": slug(plan.title),
            "tasks": [
                {
                    "id": task.key,
                    "title": task.title,
                    "type": task.task_type,
                    "dependencies": {"depends_on": list(task.depends_on)},
                    "requirements_addressed": list(task.requirements),
                    "files_to_modify": list(task.files),
                }
                for task in plan.tasks
            ],
        },
    }


def spec_task_status(task_status: str | None, merge_state: str, held: bool, own: str) -> str:
    """The status of a task of a spec: that of its queue task, or its own while there is none."""
    if task_status is None:
        return own
    if task_status == "completed":
        return (
            "completed"
            if merge_state in ("none", "merged")
            else "blocked"
            if merge_state == "failed"
            else "in_progress"
        )
    if task_status in ("failed", "cancelled"):
        return "blocked"
    if task_status in ("pending", "needs_revision"):
        return "blocked" if held else "pending"
    return "in_progress"


def with_dependencies(ids: Iterable[str], depends_on: Mapping[str, Sequence[str]]) -> set[str]:
    """These tasks and all that they wait for, directly or not; ids that are no task's are left out."""
    found: set[str] = set()
    waiting = [one for one in ids if one in depends_on]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += [other for other in depends_on[one] if other in depends_on]
    return found


def belongs_for_good(ticket_context: Mapping[str, Any]) -> bool:
    """Whether a ticket was made of its spec, by the plan or for tasks added by hand: it stays with that spec."""
    return ticket_context.get("source") in ("plan", "spec_task_execution")
