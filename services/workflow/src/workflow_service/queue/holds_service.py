"""Finds tasks whose holds of project and ticket have no cause, or are missing, and puts them right."""

from __future__ import annotations

from collections.abc import Sequence

from servicekit.db import Tx
from workflow_service.queue import locks_store, rules, store
from workflow_service.queue.drafts_service import project_holds
from workflow_service.queue.rules import Hold
from workflow_service.queue.service import QueueService

OF_PROJECT = Hold.PROJECT_NOT_ACTIVE | Hold.REPOSITORY_NOT_READY | Hold.NOT_AUTONOMOUS
OF_TICKET = Hold.TICKET_NOT_APPROVED | Hold.TICKET_BLOCKED | Hold.TICKET_WAITS | Hold.SPEC_ARCHIVED


class TaskHolds:
    """Joins the transactions of its callers."""

    def __init__(self, queue: QueueService) -> None:
        self._queue = queue

    async def hide(self, tx: Tx, ticket_ids: Sequence[str], hidden: bool) -> None:
        """The spec of these tickets is archived: their tasks leave lists and are claimed no more; or the reverse."""
        await self._queue.announce(tx, await store.hide_of_tickets(tx, ticket_ids, hidden))

    async def weigh(self, tx: Tx, task_id: str) -> bool:
        """Give a pending task the holds of its project and ticket, which are kept from changing; whether it had others.

        A remedy runs while its ticket is blocked.
        """
        seen = await store.get(tx, task_id)
        if seen is None:
            return False
        projects = await store.share_projects(tx, [seen.project_id])
        found = await locks_store.lock(tx, task_id)
        if found is None or found[0].status != rules.PENDING:
            return False
        task, now = found
        wanted = int(project_holds(projects[task.project_id], task.spec_id, task.execution_config))
        wanted |= (await self._queue.laid_on_tasks(tx, [task.ticket_id])).get(task.ticket_id, 0)
        if task.task_type == rules.REMEDIATION:
            wanted &= ~int(Hold.TICKET_BLOCKED)
        holds = task.holds & ~int(OF_PROJECT | OF_TICKET) | wanted
        if holds == task.holds:
            return False
        task.holds = holds
        task.updated_at = now
        task.version += 1
        await tx.session.flush()
        await self._queue.announce(tx, [task.id])
        return True
