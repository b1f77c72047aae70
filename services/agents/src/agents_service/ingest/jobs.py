"""Clock work of the ingest room."""

from __future__ import annotations

from agents_service.ingest.service import IngestService
from servicekit.jobs import Job


def jobs(service: IngestService) -> list[Job]:
    """The days' tables are made ahead of time; they and the transcripts are dropped after the retention."""
    return [
        Job("event-partitions", every_s=3600.0, run=service.maintain_partitions, leader=True, timeout_s=300.0),
        Job("transcripts", every_s=3600.0, run=service.forget_transcripts, leader=True, timeout_s=300.0),
    ]
