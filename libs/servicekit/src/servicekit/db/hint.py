"""Hints after a commit: whoever waits for the rows looks at once, not at its next poll."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from servicekit.db.failures import is_transient
from servicekit.tasks import cancel

if TYPE_CHECKING:
    from servicekit.db.engine import Database

# A process announces at most this often; what commits in between is covered by the announcement that follows.
_HINT_INTERVAL_S = 0.01

_log = logging.getLogger(__name__)


class CommitHint:
    """Wakes who works on what a commit left; losing a hint costs one poll interval, nothing else.

    A worker in this process is woken in memory. Otherwise the hint is a NOTIFY of its own, at most one per
    10 ms and process, and never part of the transaction: PostgreSQL holds one lock per cluster from a transaction's
    NOTIFY until its commit is on disk, so that notifying writers would commit one after the other.
    """

    def __init__(self, database: Database, channel: str) -> None:
        self._database = database
        self.channel = channel
        self._local: Callable[[], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def lead_locally(self, wake: Callable[[], None] | None) -> None:
        """Set what wakes the worker of this process; None when the work is done by another one."""
        self._local = wake

    def committed(self) -> None:
        """Announce that rows were committed. Call it on the event loop."""
        if self._local is not None:
            self._local()
            return
        if self._task is not None and not self._task.done():
            self._again = True
            return
        self._task = asyncio.get_running_loop().create_task(self._notify(), name=f"hint {self.channel}")

    async def _notify(self) -> None:
        while True:
            self._again = False
            try:
                await self._database.notify(self.channel)
            except Exception as error:
                if not is_transient(error):
                    _log.warning("hint on %s failed", self.channel, exc_info=error)
            await asyncio.sleep(_HINT_INTERVAL_S)
            if not self._again:
                return

    async def close(self) -> None:
        """Stop announcing."""
        task, self._task = self._task, None
        if task is not None:
            await cancel([task])
