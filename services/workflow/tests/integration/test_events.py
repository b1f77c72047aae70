"""The wires themselves: outbox → JetStream → consumers of this service, twice and across two instances."""

from __future__ import annotations

import asyncio
from typing import Any

from omoios.vcs.events.v1 import events_pb2 as vcs_events
from servicekit.ids import new_id
from workflow_service.main import build


async def publish(flow: Any, message: Any, event_id: str) -> None:
    """An event of vcs in this service's outbox leaves under its own subject: to its consumers it is vcs' event."""
    async with flow.db.uow() as tx:
        tx.emit(message, aggregate_id=new_id(), organization_id=flow.organization, event_id=event_id)


async def test_an_event_that_comes_twice_has_one_effect(flow: Any, outbox_runner: Any) -> None:
    project = await flow.project(repository_url="https://example.test/a.git")
    await flow.job("bind-repositories")()
    ready = vcs_events.RepositoryReady(project_id=project["id"], default_branch="main", head_sha="a" * 40)
    await publish(flow, ready, new_id())
    await publish(flow, ready, new_id())
    await outbox_runner(flow.running.service)
    found = await flow.call("GET", f"/projects/{project['id']}")
    assert (found["repository_state"], found["head_sha"]) == ("ready", "a" * 40)
    left = await flow.sql("SELECT count(*) AS n FROM outbox WHERE published_at IS NULL")
    assert left[0]["n"] == 0


async def test_two_instances_share_one_queue(flow: Any, service_host: Any) -> None:
    url = flow.running.service.settings.database_url
    targets = flow.running.service.settings.rpc_targets
    other = await service_host(build, "workflow", database_url=url, rpc_targets=targets)
    project = await flow.project(settings={"max_concurrent_tasks": 4})
    plan = "# Two\n## Tasks\n" + "".join(f"### T{n}: t{n}\n- Command: true\n" for n in range(12))
    spec = await flow.spec(project["id"], plan)
    await flow.call("POST", f"/specs/{spec['id']}/execute")
    first = other.service.servicers[0].instance
    second = flow.rpc

    async def claim(servicer: Any, number: int) -> list[Any]:
        from omoios.workflow.v1 import workflow_pb2 as pb

        request = pb.ClaimTasksRequest(
            organization_ids=[flow.organization], agent_id=f"agent-{number}", max=2, sandbox_ids=[new_id(), new_id()]
        )
        return list((await servicer.ClaimTasks(request, None)).tasks)

    answers = await asyncio.gather(*(claim(first if n % 2 else second, n) for n in range(16)))
    taken = [task.task_id for answer in answers for task in answer]
    assert len(taken) == len(set(taken)) == 4, "the project's limit holds over both instances"
    agents = await flow.sql("SELECT id, assigned_agent_id FROM tasks WHERE status = 'assigned'")
    by_claim = {task.task_id: f"agent-{n}" for n, answer in enumerate(answers) for task in answer}
    assert {row["id"]: row["assigned_agent_id"] for row in agents} == by_claim


async def test_both_instances_may_run_every_job(flow: Any, service_host: Any) -> None:
    url = flow.running.service.settings.database_url
    targets = flow.running.service.settings.rpc_targets
    other = await service_host(build, "workflow", database_url=url, rpc_targets=targets)
    project = await flow.project(repository_url="https://example.test/a.git")
    spec = await flow.spec(project["id"])
    await flow.call("POST", f"/specs/{spec['id']}/execute")
    for _ in range(2):
        jobs = [*flow.running.service.jobs, *other.service.jobs]
        await asyncio.gather(*(job.run() for job in jobs))
    assert (await flow.call("GET", f"/projects/{project['id']}"))["repository_state"] == "mirroring"
