"""The composition root: everything this service is made of."""

from __future__ import annotations

from monitoring_service import errors
from monitoring_service.access import ACCESS
from monitoring_service.events import consumers as events_consumers
from monitoring_service.events import jobs as events_jobs
from monitoring_service.events import routes as events_routes
from monitoring_service.events.fanout_service import FanOut
from monitoring_service.events.log_service import EventLog
from monitoring_service.events.service import EventStreams
from monitoring_service.settings import Settings
from servicekit.db import Database
from servicekit.events import Bus, Resources
from servicekit.host import Service, run
from servicekit.rpc import RpcChannels


def build(settings: Settings) -> Service:
    """The service with all its parts, not started."""
    db = Database(settings)
    channels = RpcChannels(settings)
    log = EventLog(db, settings)
    fanout = FanOut(db, log, settings)
    streams = EventStreams(log, fanout, settings)
    return Service(
        name="monitoring",
        settings=settings,
        access=ACCESS,
        db=db,
        channels=channels,
        bus=Bus(settings),
        resources=Resources(db, channels),
        routers=[events_routes.router(streams)],
        mounts=events_routes.routes(streams),
        consumers=[events_consumers.consumers(log)],
        jobs=events_jobs.jobs(log),
        lifespans=[streams.running],
        stopping=[streams.stop],
        errors=errors,
    )


if __name__ == "__main__":
    run(build(Settings()))
