"""Everything that any service says, into the log."""

from __future__ import annotations

from monitoring_service.event_streams.log_service import TOLD, EventLog
from servicekit.events import Consumers
from servicekit.events.registry import SERVICES


def consumers(log: EventLog) -> Consumers:
    """All events of all services, this one's own included; those that become frames are what it is for."""
    c = Consumers("log")
    for service in SERVICES:
        c.on_any_batch(service, log.append, uses=TOLD)
    return c
