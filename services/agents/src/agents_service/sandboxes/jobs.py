"""Clock work of the sandboxes room."""

from __future__ import annotations

from agents_service.sandboxes.departures_service import DepartureService
from agents_service.sandboxes.service import SandboxService
from servicekit.jobs import Job


def jobs(service: SandboxService, departures: DepartureService) -> list[Job]:
    """Tokens of ended sandboxes are revoked at identity; sandboxes that missed the end of their task are found.

    So are sandboxes of agents that are out of service, and agents that a member registered in the instant of his
    removal, when no event can name them.
    """
    return [
        Job("revoke-sandbox-tokens", every_s=1.0, run=service.revoke_tokens, leader=True),
        Job("sweep-sandboxes", every_s=10.0, run=service.sweep, leader=True),
        Job(
            "end-sandboxes-of-terminated-agents",
            every_s=10.0,
            run=departures.end_left_at_work,
            leader=True,
            wake=departures.left_at_work,
        ),
        Job("sweep-departures", every_s=30.0, run=departures.sweep, leader=True),
    ]
