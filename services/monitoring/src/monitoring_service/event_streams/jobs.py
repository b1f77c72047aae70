"""Clock work of the event log."""

from __future__ import annotations

from monitoring_service.event_streams.log_service import EventLog
from servicekit.jobs import Job


def jobs(log: EventLog) -> list[Job]:
    """The days' tables are made ahead of time and dropped when all they hold is older than the log keeps."""
    return [Job("event-log-days", every_s=3600.0, run=log.keep_partitions, leader=True, timeout_s=300.0)]
