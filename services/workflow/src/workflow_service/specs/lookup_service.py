"""What other services ask of this one: rows by id, counts, organizations, snapshots, cancelling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from servicekit.db import Database
from servicekit.errors import AppError
from workflow_service.errors import TASK_NOT_CANCELLABLE, TASK_NOT_FOUND
from workflow_service.queue.service import QueueService
from workflow_service.specs import lookup_store as store

Counts = list[tuple[str, str, int]]


class LookupService:
    """Reads for RPC. Callers are services: what they may see is decided by them."""

    def __init__(self, db: Database, queue: QueueService) -> None:
        self._db = db
        self._queue = queue

    async def tasks(self, ids: Sequence[str]) -> list[Any]:
        """Those of these tasks that exist."""
        async with self._db.reader() as tx:
            return await store.by_ids(tx, "task", ids)

    async def tickets(self, ids: Sequence[str]) -> list[Any]:
        """Those of these tickets that exist."""
        async with self._db.reader() as tx:
            return await store.by_ids(tx, "ticket", ids)

    async def projects(self, ids: Sequence[str]) -> list[Any]:
        """Those of these projects that exist."""
        async with self._db.reader() as tx:
            return await store.by_ids(tx, "project", ids)

    async def summary(self, organization_ids: Sequence[str]) -> tuple[Counts, Counts, Counts]:
        """Tasks, tickets and specs by organization and status."""
        async with self._db.reader() as tx:
            return (
                await store.tasks_by_status(tx, organization_ids),
                await store.tickets_by_status(tx, organization_ids),
                await store.specs_by_status(tx, organization_ids),
            )

    async def resolve(self, references: Sequence[tuple[str, str]]) -> list[tuple[str, str, str, str]]:
        """(kind, id, organization, project) of those references that exist."""
        by_kind: dict[str, list[str]] = {}
        for kind, one in references:
            by_kind.setdefault(kind, []).append(one)
        async with self._db.reader() as tx:
            return [(kind, *place) for kind, ids in by_kind.items() for place in await store.places(tx, kind, ids)]

    async def project_snapshot(self, after: str, limit: int) -> list[Any]:
        """Projects by id."""
        async with self._db.reader() as tx:
            return await store.after(tx, "project", after, limit)

    async def ticket_snapshot(self, after: str, limit: int) -> list[Any]:
        """Tickets by id."""
        async with self._db.reader() as tx:
            return await store.after(tx, "ticket", after, limit)

    async def task_snapshot(self, after: str, limit: int) -> list[Any]:
        """Tasks by id."""
        async with self._db.reader() as tx:
            return await store.after(tx, "task", after, limit)

    async def cancel_tasks(self, ids: Sequence[str], organization_id: str, reason: str) -> list[str]:
        """Cancel those of these tasks of the organization that have not ended; returns them."""
        cancelled = []
        async with self._db.reader() as tx:
            own = [row.id for row in await store.by_ids(tx, "task", ids) if row.organization_id == organization_id]
        for task_id in own:
            try:
                async with self._db.uow() as tx:
                    await self._queue.cancel_one(tx, task_id, reason or "cancelled_by_service")
            except AppError as error:
                if error.code not in (TASK_NOT_CANCELLABLE.code, TASK_NOT_FOUND.code):
                    raise
                continue
            cancelled.append(task_id)
        return cancelled
