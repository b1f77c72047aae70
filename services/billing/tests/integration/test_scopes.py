"""Scopes of costs: phases, and whose a scope is of which no event told."""

from __future__ import annotations

from typing import Any

from omoios.agents.v1 import agents_pb2
from omoios.agents.v1.agents_pb2_grpc import AgentsServiceServicer
from omoios.workflow.v1 import workflow_pb2
from omoios.workflow.v1.workflow_pb2_grpc import WorkflowServiceServicer
from servicekit.errors import AppError, Kind
from servicekit.testing.problems import assert_problem

from .conftest import Billing, Start, usage

SUMMARY = "/api/v1/costs/summary"


class Owner:
    """Knows one resource as one organization's, until it is away."""

    def __init__(self, messages: Any, kind: str) -> None:
        self.messages = messages
        self.kind = kind
        self.organization = ""
        self.asked = 0
        self.away = False

    async def ResolveResources(self, request: Any, context: Any) -> Any:
        self.asked += 1
        if self.away:
            raise AppError("owner.unavailable", "Away.", Kind.UNAVAILABLE, retry_after_s=1)
        return self.messages.ResolveResourcesResponse(
            resources=[
                self.messages.ResolvedResource(
                    resource_type=item.resource_type, resource_id=item.resource_id, organization_id=self.organization
                )
                for item in request.references
                if (item.resource_type, item.resource_id) == (self.kind, "made-long-ago")
            ]
        )


class Workflow(Owner, WorkflowServiceServicer):
    """The owner of executions."""


class Agents(Owner, AgentsServiceServicer):
    """The owner of agents."""


async def test_an_owner_is_asked_once_for_a_scope_of_which_no_event_told(start: Start) -> None:
    workflow, agents = Workflow(workflow_pb2, "execution"), Agents(agents_pb2, "agent")
    billing = await start(peers={"workflow": workflow, "agents": agents})
    organization = billing.organization()
    workflow.organization = agents.organization = organization
    owner, eve = await billing.user(organization), await billing.user(billing.organization())
    for peer in (workflow, agents):
        url = f"{SUMMARY}?scope_type={peer.kind}&scope_id=made-long-ago"
        answer = await billing.http.get(url, headers=owner)
        assert (answer.status_code, answer.json()["record_count"]) == (200, 0)
        assert_problem(await billing.http.get(url, headers=eve), 404, "billing.scope_not_found")
        assert peer.asked == 1
        unknown = f"{SUMMARY}?scope_type={peer.kind}&scope_id=never-made"
        assert_problem(await billing.http.get(unknown, headers=owner), 404, "billing.scope_not_found")
    workflow.away = True
    later = await billing.http.get(f"{SUMMARY}?scope_type=task&scope_id=later", headers=owner)
    assert later.status_code == 503
    assert "Retry-After" in later.headers


async def test_phases_are_everybody_s_and_their_costs_are_not(billing: Billing) -> None:
    organization = billing.organization()
    await billing.tell(usage(phase_id="PHASE_TESTING"), organization)
    owner, eve = await billing.user(organization), await billing.user(billing.organization())
    url = f"{SUMMARY}?scope_type=phase&scope_id="
    for name, records in (("PHASE_TESTING", 1), ("PHASE_VALIDATION", 1), ("PHASE_INITIAL", 0), ("PHASE_DONE", 0)):
        found = (await billing.http.get(url + name, headers=owner)).json()
        assert (found["scope_id"], found["record_count"]) == (name, records)
    assert (await billing.http.get(f"{url}PHASE_TESTING", headers=eve)).json()["record_count"] == 0
    assert_problem(await billing.http.get(f"{url}PHASE_NONE", headers=owner), 404, "billing.scope_not_found")


async def test_records_name_the_account_that_they_were_charged_to(billing: Billing) -> None:
    organizations = [billing.organization(), billing.organization()]
    expected = {}
    for organization in organizations:
        await billing.tell(usage(), organization)
        path = f"/api/v1/billing/account/{organization}"
        headers = await billing.user(organization)
        account = (await billing.http.get(path, headers=headers)).json()["id"]
        (record,) = (await billing.http.get("/api/v1/costs/records", headers=headers)).json()
        assert record["billing_account_id"] == account
        expected[record["id"]] = account
    everything = (await billing.http.get("/api/v1/costs/records", headers=await billing.admin())).json()
    assert {record["id"]: record["billing_account_id"] for record in everything} == expected
