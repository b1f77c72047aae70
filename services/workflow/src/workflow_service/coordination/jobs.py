"""Clock work of executions and merges."""

from __future__ import annotations

from servicekit.jobs import Job
from workflow_service.coordination.merges_service import MergeQueue
from workflow_service.coordination.service import CoordinationService


def jobs(coordination: CoordinationService, merges: MergeQueue) -> list[Job]:
    """Merges are asked for, stuck ones asked after, and what a transaction missed is repaired."""
    return [
        Job("run-merges", every_s=2.0, run=merges.run_due, leader=True, wake=merges.queued),
        Job("repair-merges", every_s=10.0, run=merges.repair, leader=True),
        Job("finish-executions", every_s=15.0, run=coordination.sweep, leader=True),
    ]
