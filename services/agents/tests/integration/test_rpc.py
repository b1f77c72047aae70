"""What other services ask, over real gRPC, and who may ask."""

from __future__ import annotations

from typing import Any

import pytest

from agents_service.access import ACCESS
from omoios.agents.v1 import agents_pb2 as pb
from omoios.agents.v1 import agents_pb2_grpc
from servicekit.errors import AppError
from servicekit.http.openapi import openapi_document
from servicekit.rpc import RpcChannels
from servicekit.rpc.service_token import FixedToken
from servicekit.settings import ServiceSettings


@pytest.fixture
async def stub_as(world: Any) -> Any:
    """`stub_as("monitoring")`: a stub that calls with that service's token."""
    opened: list[RpcChannels] = []

    def make(service: str) -> Any:
        settings = ServiceSettings(env="test", rpc_targets={"agents": f"127.0.0.1:{world.running.rpc_port}"})
        channels = RpcChannels(settings, tokens=FixedToken(world.signing.service(service)), service=service)
        opened.append(channels)
        return agents_pb2_grpc.AgentsServiceStub(channels.channel("agents"))

    yield make
    for channels in opened:
        await channels.close()


async def test_reads_messages_and_ends(world: Any, stub_as: Any) -> None:
    claim = await world.sandbox()
    agent_id, sandbox_id = claim["agent"]["agent_id"], claim["sandbox"]["id"]
    stub = stub_as("monitoring")

    (agent,) = (await stub.BatchGetAgents(pb.BatchGetAgentsRequest(ids=[agent_id, "none"]))).agents
    assert (agent.id, agent.organization_id, agent.status) == (agent_id, "org-1", "RUNNING")
    (sandbox,) = (await stub.BatchGetSandboxes(pb.BatchGetSandboxesRequest(ids=[sandbox_id]))).sandboxes
    assert (sandbox.task_id, sandbox.attempt, sandbox.state) == ("task-1", 1, "running")
    summary = await stub.GetAgentSummary(pb.GetAgentSummaryRequest(organization_ids=["org-1", "org-2"]))
    assert [(item.status, item.count) for item in summary.agents] == [("RUNNING", 1)]
    assert [(item.status, item.count) for item in summary.sandboxes] == [("running", 1)]
    references = [
        pb.ResourceReference(resource_type=kind, resource_id=id_)
        for kind, id_ in (
            ("agent", agent_id),
            ("sandbox", sandbox_id),
            ("ticket", "x"),
            ("agent", "none"),
        )
    ]
    resolved = (await stub.ResolveResources(pb.ResolveResourcesRequest(references=references))).resources
    assert {(item.resource_type, item.organization_id) for item in resolved} == {
        ("agent", "org-1"),
        ("sandbox", "org-1"),
    }

    message = pb.OutgoingMessage(
        message_id="m-1", sandbox_id=sandbox_id, content="look", message_type="guardian_nudge", sender_id="guardian"
    )
    lost = pb.OutgoingMessage(message_id="m-2", sandbox_id="none", content="look", message_type="system")
    for _ in range(2):
        sent = await stub.SendMessages(pb.SendMessagesRequest(messages=[message, lost]))
        assert list(sent.accepted_message_ids) == ["m-1"]
    read = (await world.get(f"/sandboxes/{sandbox_id}/messages", claim["sandbox"]["token"])).json()
    assert [item["content"] for item in read] == ["look"]

    ended = await stub.EndSandboxes(pb.EndSandboxesRequest(sandbox_ids=[sandbox_id, "none"], reason="terminated"))
    assert list(ended.ended_sandbox_ids) == [sandbox_id]
    again = await stub.EndSandboxes(pb.EndSandboxesRequest(sandbox_ids=[sandbox_id]))
    assert list(again.ended_sandbox_ids) == []


async def test_the_snapshot_pages_through_all_agents(world: Any, stub_as: Any) -> None:
    ids = sorted([(await world.register())["agent_id"] for _ in range(5)])
    stub = stub_as("monitoring")
    seen: list[str] = []
    token = ""
    while True:
        page = await stub.ListAgentSnapshot(pb.ListAgentSnapshotRequest(page_size=2, page_token=token))
        seen += [agent.id for agent in page.agents]
        token = page.next_page_token
        if not token:
            break
    assert seen == ids


async def test_other_services_are_refused(stub_as: Any) -> None:
    stub = stub_as("billing")
    with pytest.raises(AppError) as caught:
        await stub.EndSandboxes(pb.EndSandboxesRequest(sandbox_ids=["x"]))
    assert caught.value.code == "rpc.caller_not_allowed"


async def test_every_operation_refuses_the_anonymous(world: Any) -> None:
    operations = [
        (method, path, item["operationId"])
        for path, methods in openapi_document(world.running.service)["paths"].items()
        for method, item in methods.items()
        if item.get("operationId") in ACCESS.operations
    ]
    assert {name for _, _, name in operations} == set(ACCESS.operations)
    for method, path, name in operations:
        answer = await world.http.request(method, path.replace("{agent_id}", "a").replace("{sandbox_id}", "s"), json={})
        assert answer.status_code == (200 if ACCESS.operations[name].public else 401), (method, path)
