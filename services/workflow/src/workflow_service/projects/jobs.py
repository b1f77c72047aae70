"""Clock work of projects."""

from __future__ import annotations

from servicekit.jobs import Job
from workflow_service.projects.service import ProjectService


def jobs(projects: ProjectService) -> list[Job]:
    """Binding of repositories: soon after a project was made, again with backoff."""
    # Tries after a pause are found by the clock; a new binding wakes the job.
    return [Job("bind-repositories", every_s=1.0, run=projects.bind_due, leader=True, wake=projects.bindings)]
