"""What the spec operations take and answer."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
Text = Annotated[str, StringConstraints(max_length=100_000)]
Clause = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=10_000)]


class SpecCreate(BaseModel):
    """A new spec. With `plan` (markdown, engine `plan`) its requirements, design, tickets and tasks are made, too."""

    project_id: str
    title: Title | None = None
    description: Text | None = None
    engine: str | None = None
    plan: Annotated[str, StringConstraints(max_length=3_000_000)] | None = None


class SpecPatch(BaseModel):
    """Changes; null or absent means unchanged. `status` is derived and cannot be set; the current one is accepted."""

    title: Title | None = None
    description: Text | None = None
    status: str | None = None
    phase: str | None = None


class CriterionOut(BaseModel):
    """One acceptance criterion."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    text: str
    completed: bool


class RequirementOut(BaseModel):
    """One requirement. `local_id`: its id in the plan."""

    id: str
    local_id: str | None
    title: str
    condition: str
    action: str
    criteria: list[CriterionOut]
    linked_design: str | None
    status: str


class SpecTaskOut(BaseModel):
    """One task of a spec. `task_id`: the queue's task; `dependencies`: ids of tasks of this spec."""

    id: str
    local_id: str | None
    task_id: str | None
    title: str
    description: str | None
    phase: str
    priority: str
    status: str
    assigned_agent: str | None
    dependencies: list[str]
    estimated_hours: float | None
    actual_hours: float | None


class ApiSpecItem(BaseModel):
    """One endpoint of a design."""

    method: Annotated[str, StringConstraints(min_length=1, max_length=20)]
    endpoint: str | None = None
    description: str | None = None
    path: str | None = None
    purpose: str | None = None
    request_schema: dict[str, Any] | None = None
    response_schema: dict[str, Any] | None = None


class Design(BaseModel):
    """A design; `path` fills a missing endpoint, `purpose` a missing description."""

    architecture: Text | dict[str, Any] | None = None
    data_model: Text | dict[str, Any] | None = None
    api_spec: list[ApiSpecItem] = Field(default_factory=list)


class DesignOut(BaseModel):
    """A design as it is stored."""

    architecture: str | None
    data_model: str | None
    api_spec: list[ApiSpecItem]


class ExecutionOut(BaseModel):
    """Figures of the work on a spec. `commits` and lines: of its tasks, as they were linked.

    Nobody measures tests yet, so that their figures are the contract's 0.
    """

    overall_progress: float = 0
    test_coverage: float = 0
    tests_total: int = 0
    tests_passing: int = 0
    active_agents: int = 0
    commits: int = 0
    lines_added: int = 0
    lines_removed: int = 0


class SpecOut(BaseModel):
    """One spec with its parts. `progress`: 0 to 100. `execution_status` tells paused from executing."""

    id: str
    project_id: str
    title: str
    description: str | None
    status: str
    phase: str
    current_phase: str
    progress: float
    test_coverage: float
    active_agents: int
    linked_tickets: int
    requirements: list[RequirementOut]
    design: DesignOut | None
    tasks: list[SpecTaskOut]
    execution: ExecutionOut | None
    generation_status: str
    execution_status: str
    engine: str | None
    budget_micro_usd: int
    target_branch: str
    execution_id: str | None
    requirements_approved: bool
    design_approved: bool
    archived: bool
    branch_name: str | None
    pull_request_url: str | None
    pull_request_number: int | None
    version: int
    created_at: datetime
    updated_at: datetime


class SpecList(BaseModel):
    """A page of specs; `total` counts all that match."""

    specs: list[SpecOut]
    total: int


class Message(BaseModel):
    """A sentence."""

    message: str


class ExecuteBody(BaseModel):
    """Options of an execution that existing clients send; neither changes what is done."""

    working_directory: str | None = None
    enable_embeddings: bool = True


class ExecuteOut(BaseModel):
    """`status`: started or already_running."""

    spec_id: str
    status: str
    message: str
    current_phase: str | None
    execution_id: str


class ExecuteTasksBody(BaseModel):
    """Which tasks of the spec; all without ids."""

    task_ids: list[Annotated[str, StringConstraints(min_length=1, max_length=100)]] | None = Field(
        default=None, max_length=10_000
    )


class TasksExecuted(BaseModel):
    """What was made and begun."""

    success: bool
    message: str
    tasks_created: int
    tasks_skipped: int
    ticket_id: str | None
    errors: list[str]


class ReasonBody(BaseModel):
    """Why."""

    reason: Annotated[str, StringConstraints(max_length=1000)] = ""


class ExecutionChange(BaseModel):
    """How the execution of a spec stands now."""

    spec_id: str
    execution_id: str
    status: str
    message: str


class StatusCounts(BaseModel):
    """Tasks of a spec by how far they are."""

    pending: int = 0
    in_progress: int = 0
    completed: int = 0
    blocked: int = 0


class ExecutionStatus(BaseModel):
    """How the work on a spec stands. `progress`: 0 to 100; `blocked_reason`: why none of it can go on until then."""

    spec_id: str
    total_tasks: int
    status_counts: StatusCounts
    progress: float
    is_complete: bool
    execution_id: str | None
    execution_status: str
    target_branch: str
    tasks_by_state: dict[str, int]
    blocked_reason: str | None


class PhaseData(BaseModel):
    """What the phases of a spec have produced."""

    spec_id: str
    current_phase: str
    phase_data: dict[str, Any]
    phase_attempts: dict[str, Any]
    last_checkpoint_at: datetime | None
    last_error: str | None


class RequirementCreate(BaseModel):
    """A new requirement: WHEN `condition` THE SYSTEM SHALL `action`."""

    title: Title
    condition: Clause
    action: Clause
    linked_design: Annotated[str, StringConstraints(max_length=100)] | None = None


class RequirementPatch(BaseModel):
    """Changes; null or absent means unchanged."""

    title: Title | None = None
    condition: Clause | None = None
    action: Clause | None = None
    status: Annotated[str, StringConstraints(min_length=1, max_length=50)] | None = None
    linked_design: Annotated[str, StringConstraints(max_length=100)] | None = None


class CriterionCreate(BaseModel):
    """A new acceptance criterion."""

    text: Clause


class CriterionPatch(BaseModel):
    """Changes; null or absent means unchanged."""

    text: Clause | None = None
    completed: bool | None = None


class SpecTaskCreate(BaseModel):
    """A new task of a spec."""

    title: Title
    description: Text | None = None
    phase: str = "Implementation"
    priority: str = "medium"


class SpecTaskPatch(BaseModel):
    """Changes; null or absent means unchanged."""

    title: Title | None = None
    description: Text | None = None
    phase: str | None = None
    priority: str | None = None
    status: str | None = None
    assigned_agent: Annotated[str, StringConstraints(max_length=255)] | None = None


class VersionOut(BaseModel):
    """One recorded change of a spec."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    spec_id: str
    version_number: int
    change_type: str
    change_summary: str
    change_details: dict[str, Any] | None
    created_by: str | None
    snapshot: dict[str, Any] | None
    created_at: datetime


class VersionList(BaseModel):
    """Changes, newest first; `total` counts these rows."""

    versions: list[VersionOut]
    total: int


class CriterionStatus(BaseModel):
    """The criteria of one requirement."""

    requirement_title: str
    total: int
    completed: int
    criteria: list[CriterionOut]


class CriteriaStatus(BaseModel):
    """The criteria of a spec; 100 % and not complete when there is none."""

    spec_id: str
    total_criteria: int
    completed_criteria: int
    completion_percentage: float
    all_complete: bool
    by_requirement: dict[str, CriterionStatus]


class LinkBody(BaseModel):
    """Which tickets."""

    ticket_ids: list[Annotated[str, StringConstraints(min_length=1, max_length=100)]] = Field(max_length=500)


class Linked(BaseModel):
    """What was linked; `ticket_ids` are those that were found."""

    spec_id: str
    linked_count: int
    already_linked_count: int
    ticket_ids: list[str]


class Unlinked(BaseModel):
    """How many were unlinked."""

    spec_id: str
    unlinked_count: int


class LinkedTicket(BaseModel):
    """A ticket of a spec."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    title: str
    description: str | None
    status: str
    priority: str
    phase_id: str
    created_at: datetime


class LinkedTickets(BaseModel):
    """The tickets of a spec."""

    spec_id: str
    tickets: list[LinkedTicket]
    total: int
