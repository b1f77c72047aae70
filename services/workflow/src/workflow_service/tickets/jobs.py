"""Clock work of tickets."""

from __future__ import annotations

from servicekit.jobs import Job
from workflow_service.tickets.service import TicketService


def jobs(tickets: TicketService) -> list[Job]:
    """Approvals that came too late end within two seconds of their deadline."""
    return [Job("expire-approvals", every_s=1.0, run=tickets.expire_approvals, leader=True)]
