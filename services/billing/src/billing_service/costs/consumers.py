"""Reactions to usage."""

from __future__ import annotations

from collections.abc import Sequence

from billing_service.costs.service import CostService
from omoios.agents.events.v1 import events_pb2 as agents_events
from servicekit.db import Tx
from servicekit.events import Consumers, Event, Permanent


def consumers(costs: CostService) -> Consumers:
    """Prices what was used."""
    c = Consumers("costs")

    @c.on_batch(agents_events.UsageRecorded)
    async def usage_recorded(tx: Tx, events: Sequence[Event[agents_events.UsageRecorded]]) -> None:
        if not all(event.organization_id for event in events):
            raise Permanent("usage without an organization cannot be charged")
        # Accounts are locked in one order by everybody who locks several, so that nobody waits in a circle.
        for event in sorted(events, key=lambda event: event.organization_id or ""):
            await costs.record(tx, event.organization_id or "", event.body.entries)

    return c
