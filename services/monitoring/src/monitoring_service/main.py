"""The composition root: everything this service is made of."""

from __future__ import annotations

from monitoring_service import errors, replica
from monitoring_service.access import ACCESS
from monitoring_service.alerts import consumers as alerts_consumers
from monitoring_service.alerts import routes as alerts_routes
from monitoring_service.alerts.service import AlertService
from monitoring_service.anomalies import consumers as anomalies_consumers
from monitoring_service.anomalies.service import AnomalyService
from monitoring_service.clients import AgentsClient, BillingClient, WorkflowClient
from monitoring_service.event_streams import consumers as events_consumers
from monitoring_service.event_streams import jobs as events_jobs
from monitoring_service.event_streams import routes as events_routes
from monitoring_service.event_streams.fanout_service import FanOut
from monitoring_service.event_streams.log_service import EventLog
from monitoring_service.event_streams.service import EventStreams
from monitoring_service.monitor import routes as monitor_routes
from monitoring_service.monitor.service import MonitorService
from monitoring_service.settings import Settings
from servicekit.db import Database
from servicekit.events import Bus, ReplicaSource, Resources
from servicekit.host import Service, run
from servicekit.rpc import RpcChannels


def build(settings: Settings) -> Service:
    """The service with all its parts, not started."""
    db = Database(settings)
    channels = RpcChannels(settings)
    log = EventLog(db, settings)
    fanout = FanOut(db, log, settings)
    streams = EventStreams(log, fanout, settings)
    agents = AgentsClient(channels)
    anomalies = AnomalyService(db, agents)
    alerts = AlertService(db, anomalies)
    monitor = MonitorService(db, anomalies, agents, BillingClient(channels))
    rebuild = replica.Rebuild(db, WorkflowClient(channels), agents)
    return Service(
        name="monitoring",
        settings=settings,
        access=ACCESS,
        db=db,
        channels=channels,
        bus=Bus(settings),
        resources=Resources(db, channels),
        routers=[events_routes.router(streams), monitor_routes.router(monitor), alerts_routes.router(alerts)],
        mounts=events_routes.routes(streams),
        consumers=[
            events_consumers.consumers(log),
            replica.consumers(),
            anomalies_consumers.consumers(anomalies),
            alerts_consumers.consumers(alerts),
        ],
        replicas=[
            ReplicaSource("tasks", rebuild.tasks),
            ReplicaSource("tickets", rebuild.tickets),
            ReplicaSource("agents", anomalies.rebuild_agents),
            ReplicaSource("sandboxes", rebuild.sandboxes),
        ],
        jobs=events_jobs.jobs(log),
        lifespans=[streams.running],
        stopping=[streams.stop],
        errors=errors,
    )


if __name__ == "__main__":
    run(build(Settings()))
