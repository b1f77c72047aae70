"""Reactions to usage."""

from __future__ import annotations

from billing_service.costs.service import CostService
from omoios.agents.events.v1 import events_pb2 as agents_events
from servicekit.db import Tx
from servicekit.events import Consumers, Event, Permanent


def consumers(costs: CostService) -> Consumers:
    """Prices what was used."""
    c = Consumers("costs")

    @c.on(agents_events.UsageRecorded)
    async def usage_recorded(tx: Tx, event: Event[agents_events.UsageRecorded]) -> None:
        if not event.organization_id:
            raise Permanent("usage without an organization cannot be charged")
        await costs.record(tx, event.organization_id, event.body.entries)

    return c
