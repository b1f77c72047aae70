"""Settings of the workflow service."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from servicekit.settings import ServiceSettings


class Settings(ServiceSettings):
    """The base settings with this service's ports and limits."""

    http_port: int = Field(default=18102, ge=0, le=65535)
    rpc_port: int = Field(default=18202, ge=0, le=65535)

    project_concurrency: int = Field(default=5, ge=-1)
    """Tasks of one project that may be assigned or running at once; -1 means no limit. A project's setting
    `max_concurrent_tasks` replaces it."""
    default_agents_limit: int = Field(default=-1, ge=-1)
    """Tasks of one organization at once while billing has not told its limit yet; -1 means no limit."""
    lease_loss_limit: int = Field(default=5, ge=1)
    """Leases that a task may lose before it fails: a task that kills its sandbox must not go round for ever."""

    start_failure_limit: int = Field(default=20, ge=1)
    """Claims in a row that may end without a sandbox, for want of a repository for example, before the task fails.
    With the pauses between them twenty take about an hour."""

    free_releases: int = Field(default=5, ge=0)
    """Times in a row that a task may be given back, by a runner that stops for example, and be claimable at once."""
    release_limit: int = Field(default=50, ge=1)
    """Times in a row that a task may be given back before it fails. With the pauses between them fifty take more than
    three hours, so that a service which is away for long fails no task."""

    ticket_human_review: bool = False
    """Whether a new ticket waits for an approval before it may have work."""
    approval_timeout_seconds: int = Field(default=1800, ge=60, le=86400)
    on_reject: Literal["delete", "archive"] = "delete"
