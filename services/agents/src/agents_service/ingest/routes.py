"""HTTP edge of ingest: two hot routes."""

from __future__ import annotations

from agents_service.errors import ATTEMPT_SUPERSEDED, EVENT_TOO_LARGE, INGEST_BUSY, SANDBOX_ENDED, SANDBOX_NOT_FOUND
from agents_service.ingest.schemas import EventBatch, EventBatchReceived, EventCreate, EventReceived
from agents_service.ingest.service import IngestService, Submission, incoming
from servicekit.clock import utc_now
from servicekit.http.hot import HotRequest, HotRoute
from servicekit.http.problems import problems

# A batch of 500 events with the longest lines a runner sends fits.
BATCH_BYTES = 8 * 1024 * 1024
SINGLE_BYTES = 4 * 1024 * 1024
_PROBLEMS = problems(SANDBOX_NOT_FOUND, ATTEMPT_SUPERSEDED, SANDBOX_ENDED, EVENT_TOO_LARGE, INGEST_BUSY)


def routes(service: IngestService) -> list[HotRoute]:
    """The routes of the room."""

    async def record_event(call: HotRequest) -> EventReceived:
        """Records one event; it is durable when the answer comes."""
        body: EventCreate = call.body
        sandbox_id = call.path_params["sandbox_id"]
        events, transcripts, usage = incoming(
            [(body.event_id, body.event_type, bytes(body.event_data), body.source)],
            single=True,
            key=_key(call),
        )
        await service.record(Submission(call.principal, sandbox_id, events, transcripts, usage))
        return EventReceived("received", sandbox_id, body.event_type, events[0].event_id, utc_now())

    async def record_events(call: HotRequest) -> EventBatchReceived:
        """Records up to 500 events in their order; all are durable when the answer comes."""
        body: EventBatch = call.body
        sandbox_id = call.path_params["sandbox_id"]
        events, transcripts, usage = incoming(
            [(event.event_id, event.event_type, bytes(event.event_data), event.source) for event in body.events],
            single=False,
            key=_key(call),
        )
        receipt = await service.record(Submission(call.principal, sandbox_id, events, transcripts, usage))
        return EventBatchReceived(
            "received", sandbox_id, receipt.accepted, receipt.duplicates, receipt.last_sequence, utc_now()
        )

    return [
        HotRoute(
            "sandboxes.record_event",
            "/api/v1/sandboxes/{sandbox_id}/events",
            methods=["POST"],
            endpoint=record_event,
            request=EventCreate,
            response=EventReceived,
            body_limit=SINGLE_BYTES,
            responses=_PROBLEMS,
        ),
        HotRoute(
            "sandboxes.record_events",
            "/api/v1/sandboxes/{sandbox_id}/events/batch",
            methods=["POST"],
            endpoint=record_events,
            request=EventBatch,
            response=EventBatchReceived,
            body_limit=BATCH_BYTES,
            responses=_PROBLEMS,
        ),
    ]


def _key(call: HotRequest) -> str:
    """Caller, address and Idempotency-Key, empty without one."""
    key = call.header("Idempotency-Key")
    return f"{call.principal.type}:{call.principal.id}:{call.request.url.path}:{key}" if key else ""
