"""What vcs says about repositories."""

from __future__ import annotations

from omoios.vcs.events.v1 import events_pb2 as vcs_events
from servicekit.db import Tx
from servicekit.events import Consumers, Event
from workflow_service.projects.service import ProjectService


def consumers(projects: ProjectService) -> Consumers:
    """Repository ready and failed update the project's row."""
    c = Consumers("projects")

    @c.on(vcs_events.RepositoryReady)
    async def repository_ready(tx: Tx, event: Event[vcs_events.RepositoryReady]) -> None:
        body = event.body
        await projects.repository_ready(
            tx,
            body.project_id,
            body.url,
            body.default_branch,
            body.head_sha,
            body.github_owner,
            body.github_repo,
            event.version,
        )

    @c.on(vcs_events.RepositoryFailed)
    async def repository_failed(tx: Tx, event: Event[vcs_events.RepositoryFailed]) -> None:
        body = event.body
        await projects.repository_failed(tx, body.project_id, body.url, body.error, event.version)

    return c
