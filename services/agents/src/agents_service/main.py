"""The composition root: everything the service is made of, on one page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agents_service import errors, rpc
from agents_service.access import ACCESS
from agents_service.agents import jobs as agents_jobs
from agents_service.agents import routes as agents_routes
from agents_service.agents.discovery_service import AgentDiscovery
from agents_service.agents.service import AgentService
from agents_service.claims import routes as claims_routes
from agents_service.claims.service import ClaimService
from agents_service.clients import IdentityClient, VcsClient, WorkflowClient
from agents_service.ingest import jobs as ingest_jobs
from agents_service.ingest import routes as ingest_routes
from agents_service.ingest.reading_service import EventReader
from agents_service.ingest.service import IngestService
from agents_service.sandboxes import consumers as sandboxes_consumers
from agents_service.sandboxes import jobs as sandboxes_jobs
from agents_service.sandboxes import routes as sandboxes_routes
from agents_service.sandboxes.completion_service import AttemptService
from agents_service.sandboxes.departures_service import DepartureService
from agents_service.sandboxes.messages_service import MessageService
from agents_service.sandboxes.reading_service import SandboxReading
from agents_service.sandboxes.service import SandboxService
from agents_service.sandboxes.wakeups_service import Wakeups
from agents_service.settings import Settings
from omoios.agents.events.v1 import events_pb2 as agents_events
from omoios.workflow.events.v1 import events_pb2 as workflow_events
from servicekit.db import Database
from servicekit.events import Bus, Event, Resources
from servicekit.host import Service, run
from servicekit.rpc import RpcChannels


def build(settings: Settings) -> Service:
    """The service, not yet started."""
    db = Database(settings)
    channels = RpcChannels(settings)
    bus = Bus(settings)
    identity = IdentityClient(channels.channel("identity"))
    workflow = WorkflowClient(channels.channel("workflow"))
    vcs = VcsClient(channels.channel("vcs"))
    wakeups = Wakeups()

    agents = AgentService(db, identity, settings)
    ingest = IngestService(db, settings)
    reader = EventReader(db)
    sandboxes = SandboxService(db, agents, ingest, workflow, vcs, identity, settings)
    departures = DepartureService(agents, sandboxes)
    agents.on_terminated(departures.terminated)
    reading = SandboxReading(sandboxes, reader)
    messages = MessageService(sandboxes, wakeups)
    attempts = AttemptService(sandboxes)
    claims = ClaimService(agents, sandboxes, wakeups, settings)

    def tasks_ready(event: Event[workflow_events.TasksReady]) -> None:
        if event.organization_id:
            wakeups.notify(event.organization_id, max(1, len(event.body.tasks)))

    def message_queued(event: Event[agents_events.SandboxMessageQueued]) -> None:
        wakeups.notify(event.body.sandbox_id)

    bus.subscribe_live("workflow.tasks.ready.v1", tasks_ready)
    bus.subscribe_live("agents.sandbox.message_queued.v1", message_queued)

    @asynccontextmanager
    async def flushed() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await ingest.close()

    return Service(
        name="agents",
        settings=settings,
        access=ACCESS,
        db=db,
        channels=channels,
        bus=bus,
        resources=Resources(db, channels),
        routers=[
            agents_routes.router(agents, AgentDiscovery(agents)),
            claims_routes.router(claims),
            sandboxes_routes.router(sandboxes, reading, messages, attempts),
        ],
        hot_routes=ingest_routes.routes(ingest),
        servicers=[rpc.servicer(agents, sandboxes, messages, reader)],
        consumers=[sandboxes_consumers.consumers(sandboxes), sandboxes_consumers.departures(departures)],
        jobs=[*agents_jobs.jobs(agents), *ingest_jobs.jobs(ingest), *sandboxes_jobs.jobs(sandboxes, departures)],
        lifespans=[flushed],
        stopping=[wakeups.close],
        errors=errors,
    )


if __name__ == "__main__":
    run(build(Settings()))
