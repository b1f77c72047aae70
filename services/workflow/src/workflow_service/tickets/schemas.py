"""What the ticket operations take and answer."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
Text = Annotated[str, StringConstraints(max_length=100_000)]
Short = Annotated[str, StringConstraints(max_length=255)]


class TicketDependencies(BaseModel):
    """Tickets that come first, and tickets that wait for this one."""

    blocked_by: list[UUID] = Field(default_factory=list, max_length=100)
    blocks: list[UUID] = Field(default_factory=list, max_length=100)


class TicketCreate(BaseModel):
    """A new ticket. Its project is named, or found by the repository."""

    title: Title
    description: Text | None = None
    phase_id: str = "PHASE_REQUIREMENTS"
    priority: str = "MEDIUM"
    project_id: str | None = None
    check_duplicates: bool = True
    similarity_threshold: Annotated[float, Field(ge=0, le=1)] = 0.85
    force_create: bool = False
    github_owner: Short | None = None
    github_repo: Short | None = None
    workflow_mode: Literal["quick", "spec_driven"] | None = None
    dependencies: TicketDependencies | None = None


class TicketPatch(BaseModel):
    """Changes; null or absent means unchanged. A status moves the ticket through the engine."""

    title: Title | None = None
    description: Text | None = None
    priority: str | None = None
    status: str | None = None


class TicketOut(BaseModel):
    """One ticket."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    title: str
    description: str | None
    phase_id: str
    status: str
    priority: str
    project_id: str | None
    spec_id: str | None
    approval_status: str | None
    is_blocked: bool
    blocked_reason: str | None
    context: dict[str, Any] | None
    version: int
    created_at: datetime
    updated_at: datetime


class TicketList(BaseModel):
    """A page of tickets; `total` counts all that match, with `search` up to 10,000."""

    tickets: list[TicketOut]
    total: int


class DuplicateCandidate(BaseModel):
    """A ticket that says the same."""

    ticket_id: str
    title: str
    description: str
    status: str
    similarity_score: float


class DuplicateCheck(BaseModel):
    """Whether a ticket of this text exists."""

    is_duplicate: bool
    message: str
    candidates: list[DuplicateCandidate]
    highest_similarity: float


class DuplicateQuery(BaseModel):
    """A text to look for among the tickets of the caller's projects, or of one."""

    title: Title
    description: Text | None = None
    project_id: str | None = None
    similarity_threshold: Annotated[float, Field(ge=0, le=1)] = 0.85
    top_k: Annotated[int, Field(ge=1, le=50)] = 5


class TransitionBody(BaseModel):
    """A move named by status."""

    to_status: str
    reason: Annotated[str, StringConstraints(max_length=1000)] | None = None
    force: bool = False


class TicketContext(BaseModel):
    """What is known around a ticket."""

    ticket_id: str
    full_context: dict[str, Any]
    summary: str | None


class NoProgression(BaseModel):
    """The ticket stays where it is."""

    status: Literal["no_progression"] = "no_progression"


class ApproveBody(BaseModel):
    """Which ticket."""

    ticket_id: UUID


class RejectBody(BaseModel):
    """Which ticket, and why."""

    ticket_id: UUID
    rejection_reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]


class ApprovalDecision(BaseModel):
    """What was decided."""

    ticket_id: str
    status: str


class PendingCount(BaseModel):
    """Tickets of the caller's organizations that wait for an approval."""

    pending_count: int


class ApprovalStatus(BaseModel):
    """How the approval of a ticket stands."""

    ticket_id: str
    approval_status: str
    deadline_at: datetime | None
    requested_by_agent_id: str | None
    rejection_reason: str | None
