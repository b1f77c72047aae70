"""Clock work of the queue."""

from __future__ import annotations

from servicekit.jobs import Job
from workflow_service.queue.claims_service import ClaimService


def jobs(claims: ClaimService) -> list[Job]:
    """The sweeper, the repair of missed releases, the scores."""
    return [
        Job("sweep-leases", every_s=0.5, run=claims.sweep, leader=True),
        Job("repair-releases", every_s=10.0, run=claims.repair, leader=True),
        Job("rescore-tasks", every_s=2.0, run=claims.rescore, leader=True),
    ]
