"""What the end of a task means for its sandboxes."""

from __future__ import annotations

from agents_service.sandboxes.service import SandboxService
from omoios.workflow.events.v1 import events_pb2 as workflow
from servicekit.db import Tx
from servicekit.events import Consumers, Event


def consumers(service: SandboxService) -> Consumers:
    """Each handler ends what still runs of the attempts the event is about; a second delivery finds nothing."""
    c = Consumers("sandboxes")

    @c.on(workflow.TaskCancelled)
    async def task_cancelled(tx: Tx, event: Event[workflow.TaskCancelled]) -> None:
        await service.end_attempts(tx, event.body.task.task_id, event.body.attempt, "cancelled")

    @c.on(workflow.TaskRequeued)
    async def task_requeued(tx: Tx, event: Event[workflow.TaskRequeued]) -> None:
        await service.end_attempts(tx, event.body.task.task_id, event.body.attempt, "lost")

    @c.on(workflow.TaskFailed)
    async def task_failed(tx: Tx, event: Event[workflow.TaskFailed]) -> None:
        await service.end_attempts(tx, event.body.task.task_id, event.body.attempt, "failed")

    @c.on(workflow.TaskRetryScheduled)
    async def task_retry_scheduled(tx: Tx, event: Event[workflow.TaskRetryScheduled]) -> None:
        await service.end_attempts(tx, event.body.task.task_id, event.body.attempt, "failed")

    @c.on(workflow.TaskCompleted)
    async def task_completed(tx: Tx, event: Event[workflow.TaskCompleted]) -> None:
        await service.end_attempts(tx, event.body.task.task_id, event.body.attempt, "completed")

    return c
