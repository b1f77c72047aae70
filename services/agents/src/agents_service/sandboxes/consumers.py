"""What the end of a task means for its sandboxes, and what a member's leaving means for his agents."""

from __future__ import annotations

from agents_service.sandboxes.departures_service import DepartureService
from agents_service.sandboxes.service import SandboxService
from omoios.identity.events.v1 import events_pb2 as identity
from omoios.workflow.events.v1 import events_pb2 as workflow
from servicekit.db import Tx
from servicekit.events import Consumers, Event


def consumers(service: SandboxService) -> Consumers:
    """Each handler ends the sandbox of the attempt that the event is about, and none where nothing ran.

    Every attempt's end has an event of its own, so that no order of arrival gives a sandbox another attempt's reason.
    """
    c = Consumers("sandboxes")

    @c.on(workflow.TaskCancelled)
    async def task_cancelled(tx: Tx, event: Event[workflow.TaskCancelled]) -> None:
        await service.end(tx, event.body.sandbox_id, "cancelled")

    @c.on(workflow.TaskRequeued)
    async def task_requeued(tx: Tx, event: Event[workflow.TaskRequeued]) -> None:
        await service.end(tx, event.body.sandbox_id, "lost")

    @c.on(workflow.TaskFailed)
    async def task_failed(tx: Tx, event: Event[workflow.TaskFailed]) -> None:
        await service.end(tx, event.body.sandbox_id, "failed")

    @c.on(workflow.TaskRetryScheduled)
    async def task_retry_scheduled(tx: Tx, event: Event[workflow.TaskRetryScheduled]) -> None:
        await service.end(tx, event.body.sandbox_id, "failed")

    @c.on(workflow.TaskCompleted)
    async def task_completed(tx: Tx, event: Event[workflow.TaskCompleted]) -> None:
        await service.end(tx, event.body.sandbox_id, "completed")

    return c


def departures(service: DepartureService) -> Consumers:
    """Whoever was told in another order loses the same agents: those registered before the event happened."""
    c = Consumers("departures")

    @c.on(identity.MembershipChanged)
    async def membership_changed(tx: Tx, event: Event[identity.MembershipChanged]) -> None:
        body = event.body
        await service.membership_changed(
            tx, body.user_id, body.organization_id, list(body.permissions), body.active, event.time
        )

    @c.on(identity.UserUpdated)
    async def user_updated(tx: Tx, event: Event[identity.UserUpdated]) -> None:
        if not event.body.is_active:
            await service.account_ended(tx, event.body.user_id, event.time)

    @c.on(identity.UserDeleted)
    async def user_deleted(tx: Tx, event: Event[identity.UserDeleted]) -> None:
        await service.account_ended(tx, event.body.user_id, event.time)

    return c
