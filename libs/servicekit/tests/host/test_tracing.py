"""One trace from an HTTP request through a call to the consumer of the event that the call committed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from omoios.identity.events.v1.events_pb2 import UserRegistered
from omoios.identity.v1 import identity_pb2 as pb
from omoios.identity.v1.identity_pb2_grpc import (
    IdentityServiceServicer,
    IdentityServiceStub,
    add_IdentityServiceServicer_to_server,
)
from servicekit import context, telemetry
from servicekit.auth.access import PUBLIC, AccessTable
from servicekit.db import Database, Tx
from servicekit.events import Bus, Consumers, Event
from servicekit.host import Service
from servicekit.rpc import FixedToken, RpcChannels, RpcServicer
from servicekit.settings import ServiceSettings

MIGRATIONS = Path(__file__).parent.parent / "auth" / "migrations_fixture"
FULL_NAME = "omoios.identity.v1.IdentityService"
METHODS = [method.name for method in pb.DESCRIPTOR.services_by_name["IdentityService"].methods]
CALLER_TRACE, CALLER_SPAN = "a" * 32, "b" * 16


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    found = InMemorySpanExporter()
    telemetry.setup_tracing(ServiceSettings(env="test"), "tracing", exporter=found)
    yield found
    telemetry.shutdown_tracing()


class Identity(IdentityServiceServicer):
    """Commits an event with each call."""

    def __init__(self, db: Database) -> None:
        self.db = db

    async def BatchGetUsers(self, request: pb.BatchGetUsersRequest, _context: object) -> pb.BatchGetUsersResponse:
        async with self.db.uow() as tx:
            tx.emit(UserRegistered(user_id=request.ids[0]), aggregate_id=request.ids[0], version=1)
        return pb.BatchGetUsersResponse(users=[pb.User(id=request.ids[0])])


def build_owner(settings: ServiceSettings) -> Service:
    db = Database(settings)
    return Service(
        name="identity",
        settings=settings,
        db=db,
        channels=RpcChannels(settings),
        bus=Bus(settings),
        access=AccessTable(operations={}, rpcs={name: frozenset({"workflow"}) for name in METHODS}),
        servicers=[RpcServicer(add_IdentityServiceServicer_to_server, Identity(db), FULL_NAME)],
    )


class Asking:
    """The service that is asked by HTTP, calls the owner, and consumes the owner's event."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.handled: list[tuple[str, str]] = []

    def build(self, settings: ServiceSettings) -> Service:
        channels = RpcChannels(settings, tokens=FixedToken(self.token))
        owner = IdentityServiceStub(channels.channel("identity"))
        router = APIRouter(tags=["users"])
        events = Consumers("users")

        @router.get("/api/v1/users/{user_id}")
        async def get_user(user_id: str) -> str:
            answer = await owner.BatchGetUsers(pb.BatchGetUsersRequest(ids=[user_id]))
            return str(answer.users[0].id)

        @events.on(UserRegistered)
        async def registered(_tx: Tx, event: Event[UserRegistered]) -> None:
            self.handled.append((event.body.user_id, context.traceparent.get()))

        return Service(
            name="workflow",
            settings=settings,
            db=Database(settings),
            channels=channels,
            bus=Bus(settings),
            access=AccessTable(operations={"users.get_user": PUBLIC}),
            routers=[router],
            consumers=[events],
        )


def named(spans: tuple[ReadableSpan, ...], kind: SpanKind, name: str) -> ReadableSpan:
    (found,) = [span for span in spans if span.kind is kind and name in span.name]
    return found


async def test_a_trace_goes_through_http_rpc_event_and_consumer(
    service_host: Any, database: Any, signing: Any, exporter: InMemorySpanExporter
) -> None:
    asking = Asking(signing.service("workflow"))
    owner_url, asking_url = (database("access", migrations=MIGRATIONS).url for _ in range(2))
    owner = await service_host(build_owner, "identity", database_url=owner_url, worker=True)
    asked = await service_host(
        asking.build,
        "workflow",
        database_url=asking_url,
        rpc_targets={"identity": f"127.0.0.1:{owner.rpc_port}"},
        worker=True,
    )
    header = {"traceparent": f"00-{CALLER_TRACE}-{CALLER_SPAN}-01"}
    answer = await asked.http.get("/api/v1/users/u-1", headers=header)
    assert (answer.status_code, answer.json()) == (200, "u-1")

    for _ in range(1000):
        if any(span.kind is SpanKind.CONSUMER for span in exporter.get_finished_spans()):
            break
        await asyncio.sleep(0.02)
    spans = tuple(
        span
        for span in exporter.get_finished_spans()
        if span.context is not None and span.context.trace_id == int(CALLER_TRACE, 16)
    )
    chain = [
        named(spans, SpanKind.SERVER, "GET /api/v1/users/{user_id}"),
        named(spans, SpanKind.CLIENT, "BatchGetUsers"),
        named(spans, SpanKind.SERVER, "BatchGetUsers"),
        named(spans, SpanKind.CONSUMER, "identity.user.registered.v1"),
    ]
    parents = [int(CALLER_SPAN, 16), *(span.context.span_id for span in chain if span.context is not None)]
    assert [span.parent.span_id for span in chain if span.parent is not None] == parents[:-1]
    # What the consumer itself sends on is a child of its own span.
    assert asking.handled == [("u-1", traceparent_of(chain[-1]))]


def traceparent_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"
