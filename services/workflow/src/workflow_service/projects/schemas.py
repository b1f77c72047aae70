"""What the project operations take and answer."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from workflow_service.projects.tables import Project

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255)]
Short = Annotated[str, StringConstraints(max_length=255)]
Url = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
Branch = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255, pattern=r"^[^\s~^:?*\[\\]+$")
]
Text = Annotated[str, StringConstraints(max_length=100_000)]
SETTINGS_MAX_BYTES = 65_536
"""As JSON. A page shows up to 1,000 projects with their settings."""


def _bounded(settings: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(settings)) > SETTINGS_MAX_BYTES:
        raise ValueError(f"must not exceed {SETTINGS_MAX_BYTES} bytes as JSON")
    return settings


Settings = Annotated[dict[str, Any], AfterValidator(_bounded)]


class ProjectCreate(BaseModel):
    """A new project; with `repository_url` it is bound to that repository."""

    organization_id: UUID
    name: Name
    description: Text | None = None
    default_phase_id: str = "PHASE_BACKLOG"
    github_owner: Short | None = None
    github_repo: Short | None = None
    settings: Settings | None = None
    repository_url: Url | None = None
    default_branch: Branch | None = None


class ProjectPatch(BaseModel):
    """Changes; null or absent means unchanged. `settings` is replaced whole."""

    name: Name | None = None
    description: Text | None = None
    default_phase_id: str | None = None
    status: str | None = None
    github_owner: Short | None = None
    github_repo: Short | None = None
    github_connected: bool | None = None
    settings: Settings | None = None
    autonomous_execution_enabled: bool | None = None
    repository_url: Url | None = None
    default_branch: Branch | None = None


class ProjectOut(BaseModel):
    """One project. `repository_state`: none, binding, mirroring, ready or failed."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    organization_id: str
    name: str
    description: str | None
    github_owner: str | None
    github_repo: str | None
    github_connected: bool
    default_phase_id: str
    status: str
    settings: dict[str, Any] | None
    autonomous_execution_enabled: bool
    repository_url: str | None
    default_branch: str | None
    repository_state: str
    repository_error: str | None
    head_sha: str | None
    version: int
    created_at: datetime
    updated_at: datetime


class ProjectList(BaseModel):
    """A page of projects; `total` counts all that match."""

    projects: list[ProjectOut]
    total: int


class ProjectArchived(BaseModel):
    """The project was archived."""

    success: bool
    message: str


def project_out(project: Project) -> ProjectOut:
    """The answer of a row."""
    return ProjectOut.model_validate(project)
