"""Long work that another instance takes over soon after its worker died."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import structlog

# Work of a killed instance waits at most LEASE and the pause of a job; three renewals may be lost before that.
LEASE = timedelta(seconds=15)
RENEWALS = 4

_log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def renewed(renew: Callable[[timedelta], Awaitable[None]]) -> AsyncIterator[None]:
    """Calls ``renew(LEASE)`` a few times within each lease until the block ends.

    A renewal that fails is logged and tried again: what the block writes must bear that another instance writes too.
    """

    async def forever() -> None:
        while True:
            await asyncio.sleep(LEASE.total_seconds() / RENEWALS)
            try:
                await renew(LEASE)
            except Exception as error:
                _log.warning("lease_not_renewed", error=str(error))

    task = asyncio.create_task(forever(), name="renew-lease")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
