"""Clock work of the agents room."""

from __future__ import annotations

from agents_service.agents.service import AgentService
from agents_service.agents.sweep_service import AgentSweeper
from servicekit.jobs import Job


def jobs(service: AgentService) -> list[Job]:
    """Silent agents are found within a few seconds of a missed interval."""
    return [Job("stale-agents", every_s=5.0, run=AgentSweeper(service).sweep, leader=True)]
