"""The service with real parts, and peers that answer as the contracts say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from omoios.billing.v1 import billing_pb2 as billing
from omoios.billing.v1 import billing_pb2_grpc
from omoios.identity.v1 import identity_pb2, identity_pb2_grpc
from omoios.vcs.events.v1 import events_pb2 as vcs_events
from omoios.vcs.v1 import vcs_pb2 as vcs
from omoios.vcs.v1 import vcs_pb2_grpc
from omoios.workflow.v1 import workflow_pb2 as pb
from servicekit.clock import to_wire, utc_now
from servicekit.db.event_options import event_type
from servicekit.errors import AppError, Kind
from servicekit.events import Event
from servicekit.ids import new_id
from workflow_service.main import build
from workflow_service.rpc import WorkflowServicer

from .machine_world import World

PLAN = """# Greeting
Budget: 2.50 USD

Says hello.

## Requirements

### REQ-1: Greets
WHEN the tool starts THE SYSTEM SHALL print a greeting.
- names the version
- exits with 0

### REQ-2: Logs
THE SYSTEM SHALL write a log.

## Design

One module.

## Tasks

### A: Write the greeting
- Requirements: REQ-1
- Files: src/greeting.py
- Priority: high
- Retries: 1
- Command: `echo hello > greeting.txt`

### B: Write the log
- Requirements: REQ-2
- Command: `echo log > log.txt`

### C: Check it all
- Depends: A, B
- Type: run_tests
- Timeout: 10m
- Command: `cat greeting.txt log.txt`
"""


class FakeVcs(vcs_pb2_grpc.VcsServiceServicer):
    """Takes bindings and merges; what becomes of them is told by the test as an event."""

    def __init__(self) -> None:
        self.bound: list[vcs.BindRepositoryRequest] = []
        self.merges: list[vcs.StartMergeRequest] = []
        self.refuse: AppError | None = None
        self.state = vcs.REPOSITORY_STATE_MIRRORING
        self.version = 0
        self.known: dict[str, vcs.Merge] = {}
        self.commits: dict[str, int] = {}

    async def BindRepository(self, request: Any, context: Any) -> Any:
        if self.refuse is not None:
            raise self.refuse
        self.bound.append(request)
        return vcs.BindRepositoryResponse(
            repository=vcs.Repository(
                project_id=request.project_id,
                url=request.url,
                state=self.state,
                default_branch="main",
                head_sha="f" * 40,
                version=self.version,
            )
        )

    async def StartMerge(self, request: Any, context: Any) -> Any:
        if self.refuse is not None:
            raise self.refuse
        self.merges.append(request)
        return vcs.StartMergeResponse(merge_id=request.merge_id)

    async def BatchGetMerges(self, request: Any, context: Any) -> Any:
        return vcs.BatchGetMergesResponse(merges=[self.known[one] for one in request.merge_ids if one in self.known])

    async def BatchCountCommits(self, request: Any, context: Any) -> Any:
        counts = [vcs.CommitCount(project_id=one, commits=self.commits.get(one, 0)) for one in request.project_ids]
        return vcs.BatchCountCommitsResponse(counts=counts)


class FakeBilling(billing_pb2_grpc.BillingServiceServicer):
    """Reserves until told not to."""

    def __init__(self) -> None:
        self.reserved: list[billing.ReserveExecutionRequest] = []
        self.refuse: AppError | None = None
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        self.agents_limit = -1
        self.sandbox_ms = 0
        self.month_ends_at = utc_now() + timedelta(days=9)

    async def ReserveExecution(self, request: Any, context: Any) -> Any:
        if self.refuse is not None:
            raise self.refuse
        if self.meanwhile is not None:
            await self.meanwhile()
        self.reserved.append(request)
        return billing.ReserveExecutionResponse(
            reservation=billing.Reservation(
                reservation_id=f"res-{request.execution_id}", execution_id=request.execution_id, state="held"
            )
        )

    async def BatchGetLimits(self, request: Any, context: Any) -> Any:
        response = billing.BatchGetLimitsResponse()
        for one in request.organization_ids:
            limits = response.limits.add(
                organization_id=one, agents_limit=self.agents_limit, sandbox_milliseconds_used=self.sandbox_ms
            )
            limits.period_ends_at.FromDatetime(self.month_ends_at)
        return response


class FakeIdentity(identity_pb2_grpc.IdentityServiceServicer):
    """Tells the organizations that it was given."""

    def __init__(self, signing: Any) -> None:
        self.signing = signing
        self.organizations: list[identity_pb2.Organization] = []

    async def BatchGetMemberships(self, request: Any, context: Any) -> Any:
        return self.signing.memberships_of(request.user_ids)

    async def ListOrganizationSnapshot(self, request: Any, context: Any) -> Any:
        return identity_pb2.ListOrganizationSnapshotResponse(organizations=self.organizations)


PAYMENT = AppError("billing.limit_reached", "No execution is left this month.", Kind.PAYMENT_REQUIRED)


@dataclass
class Flow:
    """The running service, a signed-in owner, and short ways to do what other services do."""

    running: Any
    signing: Any
    vcs: FakeVcs
    billing: FakeBilling
    identity: FakeIdentity
    organization: str = field(default_factory=new_id)
    user: str = field(default_factory=new_id)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def http(self) -> Any:
        return self.running.http

    @property
    def db(self) -> Any:
        return self.running.service.db

    @property
    def rpc(self) -> WorkflowServicer:
        """The servicer itself, called without a network."""
        servicer: WorkflowServicer = self.running.service.servicers[0].instance
        return servicer

    def job(self, name: str) -> Callable[[], Awaitable[Any]]:
        """One job's function."""
        return next(job.run for job in self.running.service.jobs if job.name == name)

    async def headers_of(self, role: str, organization: str | None = None) -> dict[str, str]:
        """A signed-in user with this role in the organization."""
        token = await self.signing.user(new_id(), organization or self.organization, role)
        return {"Authorization": f"Bearer {token}"}

    async def call(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        """A request as the owner; asserts the status and returns the JSON."""
        headers = options.pop("headers", self.headers)
        response = await self.http.request(method, f"/api/v1{path}", headers=headers, **options)
        assert response.status_code == status, response.text
        return response.json()

    async def project(self, **fields: Any) -> Any:
        """A project of the organization."""
        body = {"organization_id": self.organization, "name": f"project {new_id()[-6:]}"} | fields
        return await self.call("POST", "/projects", json=body)

    async def spec(self, project_id: str, plan: str | None = PLAN, **fields: Any) -> Any:
        """A spec with a plan."""
        return await self.call(
            "POST", "/specs", json={"project_id": project_id, "plan": plan, "title": "Greeting"} | fields
        )

    async def claim(self, maximum: int = 10, **fields: Any) -> list[pb.ClaimedTask]:
        """What a runner's claim is answered."""
        request = pb.ClaimTasksRequest(
            organization_ids=[self.organization],
            agent_id="agent-1",
            max=maximum,
            sandbox_ids=[new_id("sandbox-") for _ in range(maximum)],
            **fields,
        )
        return list((await self.rpc.ClaimTasks(request, None)).tasks)

    async def start(self, task: pb.ClaimedTask) -> pb.AttemptStatus:
        """The runner begins."""
        attempt = pb.TaskAttempt(task_id=task.task_id, attempt=task.attempt, sandbox_id=task.sandbox_id)
        return (await self.rpc.StartTasks(pb.StartTasksRequest(attempts=[attempt]), None)).statuses[0]

    async def complete(self, task: pb.ClaimedTask, head_sha: str = "", **fields: Any) -> str:
        """The runner is done."""
        return (await self._completed(task, head_sha, **fields)).status

    async def unblocked(self, task: pb.ClaimedTask, head_sha: str = "") -> list[str]:
        """The runner is done; what waits for no task any more."""
        return list((await self._completed(task, head_sha)).unblocked_task_ids)

    async def _completed(self, task: pb.ClaimedTask, head_sha: str, **fields: Any) -> pb.CompleteTaskResponse:
        request = pb.CompleteTaskRequest(
            task_id=task.task_id,
            attempt=task.attempt,
            sandbox_id=task.sandbox_id,
            head_sha=head_sha,
            branch=f"omoios/task/{task.task_id}" if head_sha else "",
            **fields,
        )
        return await self.rpc.CompleteTask(request, None)

    async def fail(self, task: pb.ClaimedTask, error: str, permanent: bool = False) -> pb.FailTaskResponse:
        """The runner gives up."""
        request = pb.FailTaskRequest(
            task_id=task.task_id, attempt=task.attempt, sandbox_id=task.sandbox_id, error=error, permanent=permanent
        )
        return await self.rpc.FailTask(request, None)

    async def deliver(self, message: Any, *, times: int = 1, organization: str | None = None, version: int = 1) -> None:
        """An event of another service reaches this service's consumer, as often as given, each in its transaction."""
        kind = event_type(type(message)).subject
        for group in self.running.service.consumers:
            for source in group.sources.values():
                handler = source.handlers.get(kind)
                if handler is None:
                    continue
                event: Any = _event(message, organization, version)
                for _ in range(times):
                    async with self.db.uow() as tx:
                        await handler(tx, [event])
                return
        raise AssertionError(f"nothing consumes {kind}")

    async def merge_all(self) -> None:
        """vcs merges what it was asked to merge, cleanly, and tells it."""
        await self.job("run-merges")()
        while self.vcs.merges:
            merge = self.vcs.merges.pop(0)
            for item in merge.items:
                await self.deliver(
                    vcs_events.BranchMerged(
                        merge_id=merge.merge_id,
                        task_id=item.task_id,
                        spec_id=merge.spec_id,
                        project_id=merge.project_id,
                    )
                )
            await self.deliver(
                vcs_events.MergeFinished(
                    merge_id=merge.merge_id, spec_id=merge.spec_id, merged_task_ids=[one.task_id for one in merge.items]
                )
            )
            await self.job("run-merges")()

    async def events(self, subject: str) -> list[dict[str, Any]]:
        """What left by the outbox under this subject, in order: columns of the rows."""
        async with self.db.reader() as tx:
            connection = await tx.connection()
            rows = await connection.fetch("SELECT * FROM outbox WHERE subject = $1 ORDER BY seq", subject)
        return [dict(row) for row in rows]

    async def sql(self, statement: str, *arguments: Any) -> Any:
        """One statement against the service's database."""
        async with self.db.uow() as tx:
            connection = await tx.connection()
            return await connection.fetch(statement, *arguments)


def _event(message: Any, organization: str | None, version: int) -> Event[Any]:
    options = event_type(type(message))
    headers = {
        "Nats-Msg-Id": new_id(),
        "Omoios-Type": options.subject,
        "Omoios-Time": to_wire(utc_now()),
        "Omoios-Aggregate-Type": options.aggregate,
        "Omoios-Aggregate-Id": new_id(),
        "Omoios-Version": str(version),
    } | ({"Omoios-Organization": organization} if organization else {})
    return Event(headers, options.subject, message.SerializeToString(), message)


@pytest.fixture
async def flow(service_host: Any, signing: Any, rpc_stub: Any) -> Flow:
    """The service without jobs and consumers running: the test calls them where it wants them."""
    fake_vcs, fake_billing, fake_identity = FakeVcs(), FakeBilling(), FakeIdentity(signing)
    fakes = {"vcs": fake_vcs, "billing": fake_billing, "identity": fake_identity}
    targets = {name: await rpc_stub(fake) for name, fake in fakes.items()}
    running = await service_host(build, "workflow", rpc_targets=targets)
    found = Flow(running, signing, fake_vcs, fake_billing, fake_identity)
    token = await signing.user(found.user, found.organization, "owner")
    found.headers = {"Authorization": f"Bearer {token}"}
    return found


@pytest.fixture
def world(database: Any) -> Iterator[World]:
    """The services of a state machine."""
    made = World(database("workflow").url)
    yield made
    made.close()
