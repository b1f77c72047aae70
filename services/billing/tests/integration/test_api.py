"""`/billing` and `/costs` through HTTP; usage; RPCs for others."""

from __future__ import annotations

import asyncio
import contextvars
import uuid

from google.protobuf.timestamp_pb2 import Timestamp

from omoios.billing.v1 import billing_pb2 as pb
from omoios.workflow.events.v1 import events_pb2 as workflow_events
from servicekit.testing.problems import assert_problem

from .conftest import Billing, created, usage

ACCOUNT = "/api/v1/billing/account"
COSTS = "/api/v1/costs"


class TestUsage:
    async def test_usage_told_twice_is_charged_once(self, billing: Billing) -> None:
        organization = billing.organization()
        body = usage(usage_id="usage-1")
        for _ in range(3):
            await billing.tell(body, organization)
        assert (await billing.balances(organization))["spent"] == 280
        assert (await billing.subjects()).count("costs.recorded.v1") == 1

    async def test_tokens_and_unlisted_models(self, billing: Billing) -> None:
        organization = billing.organization()
        tokens = {"kind": "model_tokens", "input_tokens": 1000, "output_tokens": 100}
        await billing.tell(usage(provider="anthropic", model="claude-haiku", **tokens), organization)
        await billing.tell(usage(provider="new", model="newer", **tokens), organization)
        url = f"{ACCOUNT}/{organization}/costs/summary"
        summary = (await billing.http.get(url, headers=await billing.user(organization))).json()
        assert summary["total_cost"] == (250 + 125 + 3000 + 1500) / 1_000_000
        assert [share["model"] for share in summary["breakdown"]] == ["newer", "claude-haiku"]


class TestHttp:
    async def test_an_account_is_there_for_its_members(self, billing: Billing) -> None:
        organization = billing.organization()
        await billing.tell(created(organization), organization)
        viewer = await billing.user(organization, "member")
        account = (await billing.http.get(f"{ACCOUNT}/{organization}", headers=viewer)).json()
        assert account["free_workflows_remaining"] == 5
        assert (account["credit_balance"], account["allowance_balance"]) == (0.0, 5.0)
        assert account["billing_email"] == "a@example.com"
        assert billing.identity.asked == 0
        summary = (await billing.http.get(f"{ACCOUNT}/{organization}/usage-summary", headers=viewer)).json()
        assert summary["can_execute"] is True
        assert summary["reason"] == "free_tier"

    async def test_an_account_is_read_while_it_is_being_charged(self, billing: Billing) -> None:
        organization = billing.organization()
        await billing.tell(created(organization), organization)
        viewer = await billing.user(organization, "member")
        async with billing.running.service.db.uow() as tx:
            statement = "SELECT 1 FROM billing_accounts WHERE organization_id = $1 FOR UPDATE"
            await (await tx.connection()).execute(statement, organization)
            for path in ("", "/usage-summary", "/costs/summary"):
                # A context of its own: this one has a transaction open already.
                request = billing.http.get(f"{ACCOUNT}/{organization}{path}", headers=viewer)
                answer = await asyncio.create_task(request, context=contextvars.Context())
                assert answer.status_code == 200, path

    async def test_an_account_whose_event_is_late_is_made_by_asking(self, billing: Billing) -> None:
        organization = billing.organization()
        answer = await billing.http.get(f"{ACCOUNT}/{organization}", headers=await billing.user(organization))
        assert answer.status_code == 200
        await billing.tell(created(organization), organization)
        assert (await billing.subjects()).count("account.created.v1") == 1

    async def test_used_up_executions_are_told(self, billing: Billing) -> None:
        organization = billing.organization()
        for n in range(5):
            await billing.reserve(f"exec-{n}", organization)
        owner = await billing.user(organization)
        check = await billing.http.post(f"{ACCOUNT}/{organization}/check-execution", headers=owner)
        assert check.json() == {"can_execute": False, "reason": "payment_required"}

    async def test_costs_are_listed_and_summed_up(self, billing: Billing) -> None:
        organization = billing.organization()
        await billing.tell(usage(task_id="task-1"), organization)
        await billing.tell(usage(task_id="task-2", agent_id="agent-2"), organization)
        owner = await billing.user(organization)
        listed = (await billing.http.get(f"{COSTS}/records", headers=owner)).json()
        assert [record["task_id"] for record in listed] == ["task-2", "task-1"]
        assert listed[0]["total_cost"] == 0.00028
        one = (await billing.http.get(f"{COSTS}/records?task_id=task-1", headers=owner)).json()
        assert [record["task_id"] for record in one] == ["task-1"]
        agent = (await billing.http.get(f"{COSTS}/records?agent_id=agent-2", headers=owner)).json()
        assert len(agent) == 1
        summary = await billing.http.get(f"{COSTS}/summary?scope_type=task&scope_id=task-1", headers=owner)
        assert summary.json()["record_count"] == 1
        whole = (await billing.http.get(f"{ACCOUNT}/{organization}/costs/summary", headers=owner)).json()
        assert (whole["scope_type"], whole["record_count"]) == ("billing_account", 2)
        records = (await billing.http.get(f"{ACCOUNT}/{organization}/costs", headers=owner)).json()
        assert records[0]["billing_account_id"]

    async def test_a_forecast(self, billing: Billing) -> None:
        owner = await billing.user(billing.organization())
        answer = await billing.http.post(f"{COSTS}/forecast", json={"pending_task_count": 10}, headers=owner)
        assert answer.json()["estimated_cost"] == 0.54
        assert answer.json()["buffer_multiplier"] == 1.2
        for body in ({}, {"pending_task_count": 0}, {"pending_task_count": 1, "avg_tokens_per_task": -1}):
            assert (await billing.http.post(f"{COSTS}/forecast", json=body, headers=owner)).status_code == 422

    async def test_strangers_and_the_anonymous_see_nothing(self, billing: Billing) -> None:
        organization = billing.organization()
        await billing.tell(usage(task_id="task-1"), organization)
        eve = await billing.user(billing.organization())
        for method, path in (
            ("GET", ""),
            ("GET", "/usage-summary"),
            ("POST", "/check-execution"),
            ("GET", "/costs"),
            ("GET", "/costs/summary"),
        ):
            url = f"{ACCOUNT}/{organization}{path}"
            assert_problem(await billing.http.request(method, url), 401, "auth.unauthenticated")
            assert_problem(await billing.http.request(method, url, headers=eve), 404, "billing.account_not_found")
        unknown = await billing.http.get(f"{ACCOUNT}/{uuid.uuid4()}", headers=eve)
        assert_problem(unknown, 404, "billing.account_not_found")
        assert (await billing.http.get(f"{ACCOUNT}/x", headers=eve)).status_code == 422
        for path in ("/records", "/summary?scope_type=global"):
            assert_problem(await billing.http.get(f"{COSTS}{path}"), 401, "auth.unauthenticated")
        assert (await billing.http.get(f"{COSTS}/records", headers=eve)).json() == []
        foreign = await billing.http.get(f"{COSTS}/summary?scope_type=task&scope_id=task-1", headers=eve)
        assert_problem(foreign, 404, "billing.scope_not_found")

    async def test_costs_of_what_is_unknown_or_foreign_are_not_found(self, billing: Billing) -> None:
        organization = billing.organization()
        owner = await billing.user(organization)
        eve = await billing.user(billing.organization())
        clerk = await billing.signing.user("u", organization, "clerk", permissions=["task:read"])
        made = workflow_events.TaskCreated(task=workflow_events.TaskReference(task_id="task-9"))
        await billing.tell(made, organization, aggregate=("task", "task-9"))
        url = f"{COSTS}/summary?scope_type=task&scope_id=task-9"
        known = await billing.http.get(url, headers=owner)
        assert (known.status_code, known.json()["record_count"]) == (200, 0)
        assert (await billing.http.get(url, headers=await billing.admin())).status_code == 200
        assert_problem(await billing.http.get(url, headers=eve), 404, "billing.scope_not_found")
        refused = await billing.http.get(url, headers={"Authorization": f"Bearer {clerk}"})
        assert_problem(refused, 403, "auth.forbidden")
        for headers in (owner, await billing.admin()):
            unknown = await billing.http.get(f"{COSTS}/summary?scope_type=spec&scope_id=task-9", headers=headers)
            assert_problem(unknown, 404, "billing.scope_not_found")

    async def test_a_phase_costs_what_was_used_in_it_by_the_caller_s_organizations(self, billing: Billing) -> None:
        organization = billing.organization()
        owner = await billing.user(organization)
        for phase in ("PHASE_TESTING", "PHASE_TESTING", "PHASE_DESIGN", ""):
            await billing.tell(usage(phase_id=phase), organization)
        await billing.tell(usage(phase_id="PHASE_TESTING"), billing.organization())
        url = f"{COSTS}/summary?scope_type=phase"
        assert_problem(await billing.http.get(url, headers=owner), 400, "billing.scope_id_needed")
        for phase, records in (("PHASE_TESTING", 2), ("PHASE_DESIGN", 1), ("PHASE_DEPLOYMENT", 0)):
            found = (await billing.http.get(f"{url}&scope_id={phase}", headers=owner)).json()
            assert (found["scope_type"], found["scope_id"], found["record_count"]) == ("phase", phase, records)
        everywhere = (await billing.http.get(f"{url}&scope_id=PHASE_TESTING", headers=await billing.admin())).json()
        assert everywhere["record_count"] >= 3

    async def test_the_whole_platform_is_a_super_admin_s(self, billing: Billing) -> None:
        organizations = [billing.organization(), billing.organization()]
        for organization in organizations:
            await billing.tell(usage(), organization)
        url = f"{COSTS}/summary?scope_type=global"
        refused = await billing.http.get(url, headers=await billing.user(organizations[0]))
        assert_problem(refused, 403, "auth.forbidden")
        summary = (await billing.http.get(url, headers=await billing.admin())).json()
        assert (summary["scope_type"], summary["scope_id"], summary["record_count"]) == ("global", None, 2)

    async def test_bad_scopes(self, billing: Billing) -> None:
        owner = await billing.user(billing.organization())
        missing = await billing.http.get(f"{COSTS}/summary?scope_type=task", headers=owner)
        assert_problem(missing, 400, "billing.scope_id_needed")
        for query in ("", "scope_type=planet", "scope_type=task&scope_id=" + "x" * 101):
            assert (await billing.http.get(f"{COSTS}/summary?{query}", headers=owner)).status_code == 422
        for query in ("limit=0", "limit=1001", "limit=x"):
            assert (await billing.http.get(f"{COSTS}/records?{query}", headers=owner)).status_code == 422

    async def test_a_role_without_billing_is_refused(self, billing: Billing) -> None:
        organization = billing.organization()
        token = await billing.signing.user("u", organization, "clerk", permissions=["task:read"])
        answer = await billing.http.get(f"{ACCOUNT}/{organization}", headers={"Authorization": f"Bearer {token}"})
        assert_problem(answer, 403, "auth.forbidden")


class TestRpc:
    async def test_limits_and_costs_for_others(self, billing: Billing) -> None:
        organization = billing.organization()
        await billing.tell(created(organization), organization)
        await billing.tell(usage(), organization)
        limits = await billing.call("BatchGetLimits", pb.BatchGetLimitsRequest(organization_ids=[organization, "x"]))
        assert [(item.agents_limit, item.workflows_limit) for item in limits.limits] == [(1, 5)]
        request = pb.GetCostSummaryRequest(organization_ids=[organization])
        costs = await billing.call("GetCostSummary", request, "monitoring")
        assert [(item.total_micro_usd, item.records) for item in costs.costs] == [(280, 1)]
        later = Timestamp()
        later.FromJsonString("2100-01-01T00:00:00Z")
        request.since.CopyFrom(later)
        assert not (await billing.call("GetCostSummary", request, "monitoring")).costs
