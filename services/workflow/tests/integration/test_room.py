"""What waiting claims are told when a limit changes, and what a claim waits for."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Any

import pytest

from omoios.billing.events.v1 import events_pb2 as billing
from omoios.identity.events.v1 import events_pb2 as identity
from servicekit.errors import AppError, Kind
from workflow_service.queue import locks_store

HINT = "workflow.tasks.ready.v1"
PLAN = "# Many\n## Tasks\n" + "".join(f"### T{number}: t{number}\n- Command: true\n" for number in range(4))


async def executing(flow: Any, **project: Any) -> str:
    """The project of a spec with four tasks that may be claimed."""
    project_id: str = (await flow.project(**project))["id"]
    spec = await flow.spec(project_id, PLAN)
    await flow.call("POST", f"/specs/{spec['id']}/execute")
    return project_id


async def hints(flow: Any) -> int:
    """How often waiting claims of the organization were told to look again."""
    rows = await flow.events(HINT)
    assert {row["aggregate_id"] for row in rows} == {flow.organization}
    return len(rows)


async def test_another_limit_of_the_organization_wakes_its_claims(flow: Any) -> None:
    await executing(flow, settings={"max_concurrent_tasks": -1})
    told = {"organization_id": flow.organization, "max_agent_runtime_hours": 100.0}
    await flow.deliver(identity.OrganizationCreated(max_concurrent_agents=1, **told))
    assert len(await flow.claim(4)) == 1
    before = await hints(flow)
    await flow.deliver(identity.OrganizationUpdated(max_concurrent_agents=3, **told), version=3)
    assert await hints(flow) == before + 1
    assert len(await flow.claim(4)) == 2
    # The same limits again, and older ones, are no news.
    await flow.deliver(identity.OrganizationUpdated(max_concurrent_agents=3, **told), version=4)
    await flow.deliver(identity.OrganizationUpdated(max_concurrent_agents=9, **told), version=2)
    assert await hints(flow) == before + 1
    await flow.deliver(
        identity.OrganizationUpdated(organization_id=flow.organization, max_concurrent_agents=3), version=5
    )
    assert await hints(flow) == before + 2, "hours wake, too"


async def test_another_limit_of_the_project_wakes_the_claims(flow: Any) -> None:
    project_id = await executing(flow, settings={"max_concurrent_tasks": 1})
    assert len(await flow.claim(4)) == 1
    before = await hints(flow)
    await flow.call("PATCH", f"/projects/{project_id}", json={"settings": {"max_concurrent_tasks": 1, "theme": "x"}})
    assert await hints(flow) == before
    await flow.call("PATCH", f"/projects/{project_id}", json={"settings": {"max_concurrent_tasks": 3}})
    assert await hints(flow) == before + 1
    assert len(await flow.claim(4)) == 2


async def test_another_plan_wakes_the_claims_which_ask_billing_for_it(flow: Any) -> None:
    await executing(flow, settings={"max_concurrent_tasks": -1})
    flow.billing.agents_limit = 1
    assert len(await flow.claim(4)) == 1
    free = billing.AccountChanged(account_id="account-1", tier="free")
    await flow.deliver(free, organization=flow.organization, version=2)
    assert await flow.claim(4) == []
    before = await hints(flow)
    flow.billing.agents_limit = 3
    await flow.deliver(free, organization=flow.organization, version=3)
    assert await hints(flow) == before, "used sandbox time is no other plan"
    assert await flow.claim(4) == [], "what billing told a moment ago still counts"
    team = billing.AccountChanged(account_id="account-1", tier="team")
    await flow.deliver(team, organization=flow.organization, version=5, times=2)
    await flow.deliver(free, organization=flow.organization, version=4)
    assert await hints(flow) == before + 1
    assert len(await flow.claim(4)) == 2


async def test_what_one_claim_hears_of_a_plan_wakes_the_others(flow: Any) -> None:
    await executing(flow, settings={"max_concurrent_tasks": -1})
    flow.billing.agents_limit = 1
    assert len(await flow.claim(1)) == 1
    before = await hints(flow)
    flow.billing.agents_limit = 4
    await flow.sql("UPDATE queue_limits SET refreshed_at = clock_timestamp() - interval '61 seconds'")
    assert len(await flow.claim(1)) == 1
    assert await hints(flow) == before + 1


async def test_a_claim_waits_for_no_change_of_dependencies_and_takes_no_task_that_is_changed(flow: Any) -> None:
    await executing(flow)
    rows = await flow.sql("SELECT id FROM tasks ORDER BY id")
    changed = rows[0]["id"]
    async with flow.db.uow() as tx:
        # As a change of dependencies has it until it commits.
        await locks_store.lock_dependencies(tx, flow.organization)
        await locks_store.lock(tx, changed)
        # Another request: it knows nothing of this transaction.
        claimed = await asyncio.create_task(flow.claim(4), context=Context())
        await (await tx.connection()).execute("UPDATE tasks SET unmet_dependencies = 1 WHERE id = $1", changed)
    assert {task.task_id for task in claimed} == {row["id"] for row in rows} - {changed}
    assert await flow.claim(4) == []


async def test_tasks_of_a_claim_that_cannot_be_answered_are_given_back(flow: Any) -> None:
    await executing(flow)
    claims, describe = flow.rpc._claims, flow.rpc._claims._describe

    async def fails(_ids: Any) -> Any:
        raise AppError("database.unavailable", "The database is not available.", Kind.UNAVAILABLE)

    claims.described_by(fails)
    with pytest.raises(AppError):
        await flow.claim(4)
    claims.described_by(describe)
    claimed = await flow.claim(4)
    assert [task.attempt for task in claimed] == [2] * 4
    assert all('"spec"' in task.context_json for task in claimed)
