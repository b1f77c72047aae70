"""What a new task is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class TaskDraft:
    """A task to be made. `depends_on`: ids of tasks, of this batch or existing. `holds`: those of the spec.

    `exempt`: holds of its ticket that do not count for this task.
    """

    id: str
    organization_id: str
    project_id: str
    ticket_id: str
    title: str
    description: str | None
    task_type: str
    phase_id: str
    priority: str
    holds: int = 0
    exempt: int = 0
    spec_id: str | None = None
    spec_task_id: str | None = None
    execution_id: str | None = None
    target_branch: str | None = None
    depends_on: tuple[str, ...] = ()
    required_capabilities: tuple[str, ...] = ()
    owned_files: tuple[str, ...] = ()
    execution_config: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    max_retries: int = 3
    timeout_seconds: int | None = None
    deadline_at: datetime | None = None
    resolves_task_id: str | None = None
    parent_task_id: str | None = None
