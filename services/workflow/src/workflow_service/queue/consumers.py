"""Reports of sandboxes that speak the older protocol: their events drive the same code as the RPCs.

And sandboxes that were taken from their agent, whose task somebody else has to take over; and other plans.
"""

from __future__ import annotations

import json
from typing import Any

from omoios.agents.events.v1 import events_pb2 as agents
from omoios.billing.events.v1 import events_pb2 as billing
from servicekit.db import Tx
from servicekit.errors import AppError
from servicekit.events import Consumers, Event
from workflow_service.errors import ATTEMPT_SUPERSEDED, TASK_NOT_FOUND
from workflow_service.queue.claims_service import AttemptRef, ClaimService
from workflow_service.queue.limits_service import LimitService
from workflow_service.queue.reports_service import SandboxReports

# A report that comes too late, or for a task that is gone, changes nothing.
_LATE = frozenset({ATTEMPT_SUPERSEDED.code, TASK_NOT_FOUND.code})


def consumers(claims: ClaimService, limits: LimitService) -> Consumers:
    """Reports of sandboxes, their loss, and plans."""
    c = Consumers("queue")
    reports = SandboxReports(claims)

    @c.on(agents.SandboxLifecycleReported)
    async def lifecycle_reported(tx: Tx, event: Event[agents.SandboxLifecycleReported]) -> None:
        body = event.body
        ref = AttemptRef(body.task_id, body.attempt, body.sandbox_id)
        data = _object(body.data_json)
        try:
            await reports.take(tx, ref, body.event_type, data)
        except AppError as error:
            if error.code not in _LATE:
                raise

    @c.on(agents.SandboxEnded)
    async def sandbox_ended(tx: Tx, event: Event[agents.SandboxEnded]) -> None:
        # Lost: its task goes on without it. Where the task still waits for it, its member or agent is gone.
        if event.body.reason == "lost":
            ref = AttemptRef(event.body.task_id, event.body.attempt, event.body.sandbox_id)
            await claims.release_one(tx, ref, "its sandbox was lost")

    @c.on(billing.AccountChanged)
    async def account_changed(tx: Tx, event: Event[billing.AccountChanged]) -> None:
        if event.organization_id:
            await limits.plan_told(tx, event.organization_id, event.body.tier, event.version)

    return c


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw) if raw else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
