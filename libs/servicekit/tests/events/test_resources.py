"""Resource → organization: from the projection, from an event on its way, or from the owner."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from omoios.identity.events.v1.events_pb2 import OrganizationCreated
from omoios.workflow.v1 import workflow_pb2 as pb
from omoios.workflow.v1.workflow_pb2_grpc import WorkflowServiceServicer
from servicekit import context
from servicekit.clock import monotonic_s
from servicekit.db import resources as projection
from servicekit.errors import AppError, ErrorSpec, Kind
from servicekit.events import Resources
from servicekit.events.resources import owner_of
from servicekit.rpc import RpcChannels

TASK_NOT_FOUND = ErrorSpec("agents.task_not_found", Kind.NOT_FOUND, "This task does not exist.")


class Workflow(WorkflowServiceServicer):
    """Knows one task."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def ResolveResources(self, request: Any, context: Any) -> Any:
        self.asked += [reference.resource_id for reference in request.references]
        return pb.ResolveResourcesResponse(
            resources=[
                pb.ResolvedResource(resource_type=item.resource_type, resource_id=item.resource_id, organization_id="o")
                for item in request.references
                if item.resource_id == "known"
            ]
        )


async def test_events_of_other_services_feed_the_projection(kit: Any) -> None:
    identity, agents = await kit.party("identity"), await kit.party("agents")
    resources = Resources(agents.db)
    agents.groups = [resources.consumers("agents")]
    assert "agents" not in agents.groups[0].sources
    await kit.topology(agents)
    async with identity.working(), agents.working():
        async with identity.db.uow() as tx:
            tx.emit(OrganizationCreated(organization_id="o-1"), aggregate_id="o-1", version=1, organization_id="o-1")
        # It waits for the event that is on its way.
        assert await resources.organization_of("organization", "o-1") == "o-1"
    assert await agents.fetch("SELECT resource_type, resource_id, organization_id FROM replica_resources") == [
        ("organization", "o-1", "o-1")
    ]


async def test_a_fact_written_by_another_process_is_found_while_waiting(kit: Any) -> None:
    agents = await kit.party("agents")
    resources = Resources(agents.db)
    waiting = asyncio.create_task(resources.organization_of("task", "t-1"))
    await asyncio.sleep(0.2)
    async with agents.db.uow() as tx:
        await projection.remember(await tx.connection(), [("task", "t-1", "o-1", None)])
    assert await waiting == "o-1"


async def test_the_owner_is_asked_once_and_its_answer_is_kept(kit: Any, rpc_stub: Any) -> None:
    agents = await kit.party("agents")
    workflow = Workflow()
    target = await rpc_stub(workflow)
    channels = RpcChannels(agents.target.settings(rpc_targets={"workflow": target}))
    resources = Resources(agents.db, channels)
    try:
        assert await resources.organization_of("task", "known") == "o"
        assert await resources.organization_of("task", "known") == "o"
        assert await Resources(agents.db).organization_of("task", "known") == "o"
        began = monotonic_s()
        for _ in range(3):
            with pytest.raises(AppError) as raised:
                await resources.organization_of("task", "unknown", TASK_NOT_FOUND)
            assert raised.value.code == "agents.task_not_found"
        with pytest.raises(AppError) as unnamed:
            await resources.organization_of("task", "unknown")
        assert unnamed.value.code == "resource.not_found"
        # The wait of one second and the question come once, not for every request.
        assert monotonic_s() - began < 2.5
    finally:
        await channels.close()
    assert workflow.asked == ["known", "unknown"]


async def test_an_owner_that_is_away_is_unavailable(kit: Any) -> None:
    agents = await kit.party("agents")
    channels = RpcChannels(agents.target.settings(rpc_targets={"workflow": "127.0.0.1:1"}))
    with pytest.raises(AppError) as raised:
        await Resources(agents.db, channels).organization_of("task", "t-1", TASK_NOT_FOUND)
    await channels.close()
    assert raised.value.kind is Kind.UNAVAILABLE


async def test_a_look_up_inside_a_transaction_is_refused(kit: Any) -> None:
    agents = await kit.party("agents")
    async with agents.db.uow():
        with pytest.raises(context.RemoteCallInTransaction):
            await Resources(agents.db).organization_of("task", "t-1")


def test_every_resource_has_one_owner() -> None:
    assert owner_of("task") == "workflow"
    assert owner_of("sandbox") == "agents"
    assert owner_of("moon") is None
