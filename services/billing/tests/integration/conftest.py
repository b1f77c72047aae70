"""A running billing service with real PostgreSQL and NATS, and an identity that knows organizations."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from billing_service.main import build
from omoios.agents.events.v1 import events_pb2 as agents_events
from omoios.billing.v1 import billing_pb2 as pb
from omoios.billing.v1.billing_pb2_grpc import BillingServiceStub
from omoios.identity.events.v1 import events_pb2 as identity_events
from omoios.identity.v1 import identity_pb2, identity_pb2_grpc
from omoios.workflow.events.v1 import events_pb2 as workflow_events
from servicekit.db.event_options import event_type
from servicekit.events import Event
from servicekit.events.worker import consumers_of
from servicekit.host import Running, Service
from servicekit.ids import new_id
from servicekit.testing.hosting import HostedSigning, ServiceHosts


class FakeIdentity(identity_pb2_grpc.IdentityServiceServicer):
    """Knows the organizations that a test adds; `asked` counts the calls."""

    def __init__(self, signing: HostedSigning) -> None:
        self.signing = signing
        self.organizations: set[str] = set()
        self.asked = 0

    async def BatchGetOrganizations(self, request: Any, context: Any) -> Any:
        self.asked += 1
        return identity_pb2.BatchGetOrganizationsResponse(
            organizations=[
                identity_pb2.Organization(id=id_, name="Org", is_active=True, billing_email="pay@example.com")
                for id_ in request.ids
                if id_ in self.organizations
            ]
        )

    async def BatchGetMemberships(self, request: Any, context: Any) -> Any:
        return self.signing.memberships_of(request.user_ids)

    async def IssueServiceToken(self, request: Any, context: Any) -> Any:
        expires_at = Timestamp()
        expires_at.FromSeconds(int(time.time()) + 3600)
        return identity_pb2.IssueServiceTokenResponse(token="t", expires_at=expires_at)


@dataclass
class Billing:
    """The running service and what tests do with it again and again."""

    running: Running
    signing: HostedSigning
    channel: grpc.aio.Channel
    identity: FakeIdentity

    @property
    def http(self) -> Any:
        return self.running.http

    async def call(self, method: str, request: Any, caller: str = "workflow") -> Any:
        metadata = [("authorization", f"Bearer {self.signing.service(caller)}")]
        return await getattr(BillingServiceStub(self.channel), method)(request, metadata=metadata, timeout=20)

    async def reserve(self, execution: str, organization: str, budget: int = 0, ttl_s: int = 0) -> Any:
        request = pb.ReserveExecutionRequest(
            execution_id=execution,
            organization_id=organization,
            spec_id="spec-1",
            project_id="project-1",
            budget_micro_usd=budget,
            ttl_s=ttl_s,
        )
        return (await self.call("ReserveExecution", request)).reservation

    async def reservation(self, execution: str) -> Any:
        answer = await self.call("BatchGetReservations", pb.BatchGetReservationsRequest(execution_ids=[execution]))
        return answer.reservations[0]

    def organization(self) -> str:
        """An organization that identity knows and no event has told of."""
        organization = new_id()
        self.identity.organizations.add(organization)
        return organization

    async def user(self, organization: str, role: str = "owner") -> dict[str, str]:
        return {"Authorization": f"Bearer {await self.signing.user(new_id(), organization, role)}"}

    async def tell(
        self, body: Any, organization: str, *, event_id: str | None = None, aggregate: tuple[str, str] = ("x", "x")
    ) -> None:
        """Hands an event to its consumers as the loop does: inbox row and effect in one transaction."""
        await hand_over(self.running.service, [(body, organization)], event_id=event_id, aggregate=aggregate)

    async def tell_together(self, batch: list[tuple[Any, str]]) -> None:
        """Hands neighbouring events of one type to their consumers, all in one transaction."""
        await hand_over(self.running.service, batch)

    async def balances(self, organization: str) -> dict[str, int]:
        async with self.running.service.db.reader() as tx:
            row = await (await tx.connection()).fetchrow(
                "SELECT available_micro_usd AS available, reserved_micro_usd AS reserved, spent_micro_usd AS spent,"
                " workflows_used AS used, workflows_reserved AS held FROM billing_accounts WHERE organization_id = $1",
                organization,
            )
        return dict(row)

    async def admin(self) -> dict[str, str]:
        """Headers of a platform super admin."""
        return {"Authorization": f"Bearer {self.signing.user_token(new_id(), super_admin=True)}"}

    async def job(self, name: str) -> Any:
        return await next(job for job in self.running.service.jobs if job.name == name).run()

    async def subjects(self) -> list[str]:
        async with self.running.service.db.reader() as tx:
            rows = await (await tx.connection()).fetch("SELECT subject FROM outbox ORDER BY seq")
        return [row["subject"].removeprefix("billing.") for row in rows]


async def hand_over(
    service: Service,
    batch: list[tuple[Any, str]],
    *,
    event_id: str | None = None,
    aggregate: tuple[str, str] = ("x", "x"),
) -> None:
    """Hands (event, organization) of one type, about one aggregate (type, id), to their consumers in a transaction."""
    kind = event_type(type(batch[0][0]))
    events: list[Event[Any]] = []
    for body, organization in batch:
        headers = {
            "Nats-Msg-Id": event_id or new_id(),
            "Omoios-Time": "2026-11-23T10:00:00Z",
            "Omoios-Aggregate-Type": aggregate[0],
            "Omoios-Aggregate-Id": aggregate[1],
            "Omoios-Version": "1",
            "Omoios-Organization": organization,
        }
        events.append(Event(headers, kind.subject, body.SerializeToString()))
    assert service.db is not None
    for group in consumers_of(service):
        source = group.sources.get(kind.service)
        if source is not None and kind.subject in source.handlers:
            async with service.db.uow() as tx:
                await source.handlers[kind.subject](tx, events)


def started(execution: str) -> workflow_events.ExecutionStarted:
    return workflow_events.ExecutionStarted(execution_id=execution, spec_id="spec-1", project_id="project-1")


def finished(execution: str, outcome: str = "completed") -> workflow_events.ExecutionFinished:
    return workflow_events.ExecutionFinished(execution_id=execution, spec_id="spec-1", outcome=outcome)


def restated(execution: str, state: str) -> workflow_events.ExecutionRestated:
    return workflow_events.ExecutionRestated(execution_id=execution, spec_id="spec-1", state=state)


def created(organization: str) -> identity_events.OrganizationCreated:
    return identity_events.OrganizationCreated(organization_id=organization, name="Org", billing_email="a@example.com")


def usage(execution: str = "", *, usage_id: str | None = None, **values: Any) -> agents_events.UsageRecorded:
    entry = {"kind": "sandbox_seconds", "sandbox_milliseconds": 10_000, "task_id": "task-1", "agent_id": "agent-1"}
    return agents_events.UsageRecorded(
        entries=[agents_events.UsageEntry(usage_id=usage_id or new_id(), execution_id=execution, **(entry | values))]
    )


Start = Callable[..., Awaitable[Billing]]


@pytest.fixture
async def start(service_host: ServiceHosts, signing: HostedSigning, rpc_stub: Any) -> Any:
    channels: list[grpc.aio.Channel] = []

    async def begun(peers: Mapping[str, Any] | None = None, **settings: Any) -> Billing:
        identity = FakeIdentity(signing)
        targets = {name: await rpc_stub(peer) for name, peer in {"identity": identity, **(peers or {})}.items()}
        running = await service_host(build, "billing", rpc_targets=targets, service_secret="s", **settings)
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{running.rpc_port}")
        channels.append(channel)
        return Billing(running, signing, channel, identity)

    yield begun
    for channel in channels:
        await channel.close()


@pytest.fixture
async def billing(start: Start) -> Billing:
    return await start(plan_limits="contract")
