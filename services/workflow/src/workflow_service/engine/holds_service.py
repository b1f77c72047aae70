"""Clock work that repairs holds: what a transaction missed, or what an older release left."""

from __future__ import annotations

import structlog

from servicekit.db import Database
from workflow_service.engine import holds_store
from workflow_service.queue.holds_service import OF_PROJECT, OF_TICKET, TaskHolds
from workflow_service.queue.service import QueueService

log = structlog.get_logger()
# So many tasks are looked at in a run, and so many of them put right.
WINDOW = 5_000
MEND_BATCH = 100
# Above every id, which begins with a digit or a small letter; signs are sorted below these by some collations.
TOP = "zzzz"


class HoldRepair:
    """Walks through the tasks, the newest first, and begins again at the end."""

    def __init__(self, db: Database, queue: QueueService) -> None:
        self._db = db
        self._holds = TaskHolds(queue)
        self._before = TOP

    async def run(self) -> int:
        """Look at the next tasks; returns how many were put right."""
        async with self._db.reader() as tx:
            last, wrong = await holds_store.wrong_holds(tx, self._before, WINDOW, int(OF_PROJECT | OF_TICKET))
        mended = 0
        for task_id in wrong[:MEND_BATCH]:
            async with self._db.uow() as tx:
                mended += await self._holds.weigh(tx, task_id)
        if mended:
            log.warning("mended_holds", tasks=mended)
        if len(wrong) <= MEND_BATCH:
            self._before = last or TOP
        return mended
