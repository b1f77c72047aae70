"""Takes the tasks of a ticket away, so that nothing waits for work that is gone."""

from __future__ import annotations

from servicekit.db import Tx
from workflow_service import events
from workflow_service.queue import locks_store, rules, store
from workflow_service.queue.service import QueueService


class TaskRemoval:
    """Joins the transactions of its callers."""

    def __init__(self, queue: QueueService) -> None:
        self._queue = queue

    async def of_ticket(self, tx: Tx, ticket_id: str, reason: str) -> None:
        """Cancel what is left to do of a locked ticket that is about to be deleted, and take its tasks out of the DAG.

        A dependency on one of them ends with it: what waited for it alone may be claimed.
        """
        tasks = await locks_store.lock_of_ticket(tx, ticket_id)
        ids = [task.id for task in tasks]
        waiting = await locks_store.lock_many(tx, await store.waiting_elsewhere(tx, ids, ticket_id)) if ids else []
        before = await store.dependencies_of(tx, [task.id for task in waiting])
        # No dependent may be told that a dependency was lost which is none any more.
        for task in waiting:
            await store.delete_edges(tx, task.id, ids)
        await self._queue.cancel(tx, tasks, await store.now(tx), reason)
        for task in waiting:
            edges = {edge[1]: edge[2] for edge in before if edge[0] == task.id}
            left = {one: met for one, met in edges.items() if one not in ids}
            if task.status in (rules.PENDING, rules.NEEDS_REVISION):
                await self._queue.recount(tx, task, left)
            task.version += 1
            events.task_dependencies_changed(tx, task, list(left), [], [one for one in edges if one not in left])
        await tx.session.flush()
        await self._queue.announce(tx, [task.id for task in waiting])
