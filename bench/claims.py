"""200 claimers at the queue's service, in a process of its own with workflow's settings: the store's side of a claim.

`python -m bench.claims` reads `{"organization_id", "claimers", "seconds"}` (JSON) from standard input, claims one task
at a time for each claimer until none is left or the time is over, and writes the outcome (JSON).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import uvloop

from bench.load import say
from servicekit.db import Database
from servicekit.rpc import RpcChannels
from workflow_service.clients import BillingClient
from workflow_service.queue.claims_service import ClaimService
from workflow_service.queue.limits_service import LimitService
from workflow_service.queue.service import QueueService
from workflow_service.settings import Settings


async def run(organization_id: str, claimers: int, seconds: float) -> dict[str, Any]:
    """Claims, those handed out twice, and the time they took."""
    settings = Settings()
    db = Database(settings)
    queue = QueueService()
    limits = LimitService(db, queue, BillingClient(RpcChannels(settings)), settings)
    service = ClaimService(db, queue, limits, settings)
    taken: list[str] = []

    async def claimer(number: int) -> None:
        count = 0
        while time.perf_counter() < until:
            count += 1
            found = await service.claim(
                organization_ids=[organization_id],
                agent_id=f"bench-{number}",
                maximum=1,
                sandbox_ids=[f"claim-{number}-{count}"],
            )
            if not found:
                return
            taken.extend(task.id for task in found)

    until = time.perf_counter() + seconds
    await claimer_once(service, organization_id)
    say("begin")
    began, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(claimer(number) for number in range(claimers)))
    took, used = time.perf_counter() - began, time.process_time() - used
    say("end")
    await db.close()
    return {"claims": len(taken), "twice": len(taken) - len(set(taken)), "seconds": took, "cpu_s": used}


async def claimer_once(service: ClaimService, organization_id: str) -> None:
    """One claim, so that connections and plans exist."""
    await service.claim(organization_ids=[organization_id], agent_id="bench", maximum=1, sandbox_ids=["claim-first"])


if __name__ == "__main__":
    given = json.loads(sys.stdin.read())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        say(json.dumps(runner.run(run(given["organization_id"], given["claimers"], given["seconds"]))))
