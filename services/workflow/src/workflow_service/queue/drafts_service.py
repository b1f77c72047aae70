"""What becomes of a draft: the holds of its project and the columns of its row."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from workflow_service.projects.tables import Project
from workflow_service.queue import rules
from workflow_service.queue.draft_rules import TaskDraft
from workflow_service.queue.rules import Hold


def project_holds(project: Project, spec_id: str | None, execution_config: Mapping[str, Any]) -> Hold:
    """What a project lays on a task of this spec, or of none."""
    holds = Hold(0)
    if project.status in ("archived", "paused", "completed"):
        holds |= Hold.PROJECT_NOT_ACTIVE
    if project.repository_state not in ("none", "ready"):
        holds |= Hold.REPOSITORY_NOT_READY
    forced = bool(execution_config.get("force_execute"))
    if spec_id is None and not project.autonomous_execution_enabled and not forced:
        holds |= Hold.NOT_AUTONOMOUS
    return holds


def row_of(
    draft: TaskDraft, target_branch: str, created_at: datetime, now: datetime, holds: int, unmet: int, dependents: int
) -> dict[str, Any]:
    """The columns of a new task. `unmet`: dependencies that are not met; `dependents`: drafts that wait for it."""
    scored = rules.Scored(draft.priority, created_at, 0, draft.max_retries, dependents, draft.deadline_at)
    return {
        "id": draft.id,
        "organization_id": draft.organization_id,
        "project_id": draft.project_id,
        "ticket_id": draft.ticket_id,
        "spec_id": draft.spec_id,
        "spec_task_id": draft.spec_task_id,
        "execution_id": draft.execution_id,
        "target_branch": target_branch,
        "phase_id": draft.phase_id,
        "task_type": draft.task_type,
        "title": draft.title,
        "description": draft.description,
        "priority": draft.priority,
        "status": rules.PENDING,
        "score": rules.score(scored, now),
        "rescore_at": rules.rescore_at(scored, now),
        "holds": holds,
        "hidden": bool(holds & Hold.SPEC_ARCHIVED),
        "unmet_dependencies": unmet,
        "required_capabilities": list(draft.required_capabilities),
        "owned_files": list(draft.owned_files),
        "execution_config": dict(draft.execution_config),
        "context": dict(draft.context),
        "max_retries": draft.max_retries,
        "timeout_seconds": draft.timeout_seconds,
        "deadline_at": draft.deadline_at,
        "resolves_task_id": draft.resolves_task_id,
        "parent_task_id": draft.parent_task_id,
        "created_at": created_at,
        "updated_at": created_at,
    }
