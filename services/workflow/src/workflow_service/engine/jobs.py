"""Clock work of the engine."""

from __future__ import annotations

from servicekit.jobs import Job
from workflow_service.engine.service import EngineService


def jobs(engine: EngineService) -> list[Job]:
    """Folding of the tickets' counts, and the repair of holds."""
    return [
        Job("fold-ticket-counts", every_s=1.0, run=engine.fold_counts, leader=True),
        Job("repair-holds", every_s=10.0, run=engine.hold_repair.run, leader=True),
    ]
