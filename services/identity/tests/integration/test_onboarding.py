"""The onboarding: steps, merging, and detection from events of other services."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.message import Message

from omoios.billing.events.v1 import events_pb2 as billing
from omoios.billing.v1 import billing_pb2, billing_pb2_grpc
from omoios.vcs.events.v1 import events_pb2 as vcs
from omoios.vcs.v1 import vcs_pb2, vcs_pb2_grpc
from omoios.workflow.events.v1 import events_pb2 as workflow
from omoios.workflow.v1 import workflow_pb2, workflow_pb2_grpc
from servicekit.auth import AccessTable
from servicekit.clock import utc_now
from servicekit.db import Database
from servicekit.host import Service
from servicekit.settings import ServiceSettings
from servicekit.testing.problems import assert_problem

from .conftest import Identity, Person, Start

BASE = "/api/v1/onboarding"


async def post(identity: Identity, person: Person, path: str, body: Any = None, **params: Any) -> Any:
    return await identity.http.post(f"{BASE}{path}", json=body, params=params, headers=person.headers)


async def get(identity: Identity, person: Person, path: str) -> Any:
    return (await identity.http.get(f"{BASE}{path}", headers=person.headers)).json()


class TestSteps:
    async def test_from_the_first_to_the_last(self, identity: Identity) -> None:
        ada = await identity.person()
        first = await get(identity, ada, "/status")
        assert first == {
            "is_completed": False,
            "current_step": "welcome",
            "completed_steps": [],
            "completed_checklist_items": [],
            "completed_at": None,
            "data": {},
            "sync_version": 1,
        }
        await post(identity, ada, "/step", {"step": "github", "data": {"role": "dev", "selectedPlan": "pro"}})
        await post(identity, ada, "/step", {"step": "repo", "data": {"role": "lead"}})
        back = (await post(identity, ada, "/step", {"step": "github"})).json()
        assert back["completed_steps"] == back["completed_checklist_items"] == ["welcome", "github", "repo"]
        assert back["data"] == {"role": "lead", "selectedPlan": "pro"}
        assert back["sync_version"] == 4
        done = (await post(identity, ada, "/complete", {"data": {"projectId": "p"}})).json()
        assert (done["is_completed"], done["current_step"]) == (True, "complete")
        assert done["completed_steps"][-1] == "complete"
        assert done["data"] == {"role": "lead", "selectedPlan": "pro", "projectId": "p"}
        again = (await post(identity, ada, "/complete", {})).json()
        assert again["completed_at"] == done["completed_at"]
        assert await get(identity, ada, "/status") == again
        reset = (await post(identity, ada, "/reset", admin_override=True)).json()
        assert (reset["current_step"], reset["data"], reset["is_completed"]) == ("welcome", {}, False)
        assert reset["sync_version"] == again["sync_version"] + 1

    async def test_first_reads_at_once_make_one_row(self, identity: Identity) -> None:
        ada = await identity.person()
        answers = await asyncio.gather(*(get(identity, ada, "/status") for _ in range(8)))
        assert [answer["sync_version"] for answer in answers] == [1] * 8

    async def test_changes_at_once_are_all_kept(self, identity: Identity) -> None:
        ada = await identity.person()
        await asyncio.gather(
            *(post(identity, ada, "/step", {"step": f"s{number}", "data": {f"k{number}": 1}}) for number in range(12))
        )
        status = await get(identity, ada, "/status")
        assert status["data"] == {f"k{number}": 1 for number in range(12)}
        assert status["sync_version"] == 13
        assert set(status["completed_steps"]) | {status["current_step"]} == {"welcome", *(f"s{n}" for n in range(12))}

    async def test_only_the_latest_state_may_be_synchronised(self, identity: Identity) -> None:
        ada = await identity.person()
        await post(identity, ada, "/step", {"step": "github", "data": {"a": 1}})
        local = {
            "current_step": "plan",
            "completed_steps": ["repo"],
            "completed_checklist_items": ["invite-team"],
            "data": {"b": 2},
        }
        before = await get(identity, ada, "/status")
        for version in (0, 1, 3, 900):
            stale = (await post(identity, ada, "/sync", local | {"local_sync_version": version})).json()
            assert stale == before
        both = await asyncio.gather(
            *(post(identity, ada, "/sync", local | {"local_sync_version": 2}) for _ in range(5))
        )
        assert {answer.json()["sync_version"] for answer in both} == {3}
        synced = await get(identity, ada, "/status")
        assert synced["completed_steps"] == ["welcome", "repo"]
        assert synced["completed_checklist_items"] == ["welcome", "invite-team"]
        assert synced["data"] == {"a": 1, "b": 2}

    @pytest.mark.parametrize(
        ("path", "body", "field"),
        [
            ("/step", {"step": ""}, "step"),
            ("/step", {"step": "x" * 51}, "step"),
            ("/step", {"step": "a", "data": []}, "data"),
            ("/step", {"step": "a", "data": {"k": "x" * 40_000}}, "body"),
            (
                "/sync",
                {"current_step": "a", "completed_steps": [], "completed_checklist_items": []},
                "local_sync_version",
            ),
            ("/complete", None, "body"),
        ],
    )
    async def test_bad_input_names_the_field(self, identity: Identity, path: str, body: Any, field: str) -> None:
        ada = await identity.person()
        answer = await post(identity, ada, path, body)
        assert answer.status_code == 422, answer.text
        assert any(field in problem["loc"] for problem in answer.json()["detail"])

    async def test_progress_grows_to_a_bound(self, identity: Identity) -> None:
        ada = await identity.person()
        for number in range(2):
            answer = await post(identity, ada, "/step", {"step": "a", "data": {f"k{number}": "x" * 20_000}})
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"][-1] == "data"

    async def test_a_super_admin_starts_somebody_again(self, identity: Identity) -> None:
        ada, root = await identity.person(), await identity.super_admin()
        await post(identity, ada, "/complete", {})
        path = f"/admin/reset/{ada.id}"
        assert_problem(await post(identity, ada, path), 403, "auth.forbidden")
        assert_problem(await post(identity, root, f"/admin/reset/{uuid.uuid4()}"), 404, "identity.user_not_found")
        assert (await post(identity, root, path)).json()["is_completed"] is False
        assert (await get(identity, ada, "/status"))["current_step"] == "welcome"
        entries = (await identity.http.get("/api/v1/users/me/audit", headers=ada.headers)).json()["items"]
        assert (entries[0]["action"], entries[0]["actor_id"]) == ("onboarding.reset", root.id)


class Projects(workflow_pb2_grpc.WorkflowServiceServicer):
    """Workflow's snapshot, one row a page."""

    def __init__(self, organization: str) -> None:
        self.organization = organization

    async def ListProjectSnapshot(self, request: Any, context: Any) -> workflow_pb2.ListProjectSnapshotResponse:
        number = int(request.page_token or 0)
        project = workflow_pb2.Project(
            id=f"project-{number}", organization_id=self.organization, status="active", version=5
        )
        token = str(number + 1) if number < 2 else ""
        return workflow_pb2.ListProjectSnapshotResponse(projects=[project], next_page_token=token)


class Repositories(vcs_pb2_grpc.VcsServiceServicer):
    """The snapshot of vcs."""

    def __init__(self, organization: str) -> None:
        self.organization = organization

    async def ListRepositorySnapshot(self, request: Any, context: Any) -> vcs_pb2.ListRepositorySnapshotResponse:
        ready = vcs_pb2.Repository(
            project_id="project-1",
            organization_id=self.organization,
            url="https://github.com/acme/app.git",
            github_owner="acme",
            github_repo="app",
            state=vcs_pb2.REPOSITORY_STATE_READY,
            version=3,
        )
        failed = vcs_pb2.Repository(
            project_id="project-0", organization_id=self.organization, state=vcs_pb2.REPOSITORY_STATE_FAILED
        )
        return vcs_pb2.ListRepositorySnapshotResponse(repositories=[failed, ready])


class Plans(billing_pb2_grpc.BillingServiceServicer):
    """Billing's answer."""

    async def BatchGetLimits(self, request: Any, context: Any) -> billing_pb2.BatchGetLimitsResponse:
        return billing_pb2.BatchGetLimitsResponse(
            limits=[billing_pb2.Limits(organization_id=id_, tier="team") for id_ in request.organization_ids]
        )


class TestDetection:
    async def test_from_events_in_any_order(
        self, start: Start, database: Any, nats_server: Any, outbox_runner: Any
    ) -> None:
        identity = await start()
        ada = await identity.person()
        nothing = await get(identity, ada, "/detect")
        assert nothing["suggested_step"] == "github"
        assert nothing["repo"] == {"completed": False, "current": None, "can_change": True}
        async with identity.running.service.db.uow() as tx:
            await (await tx.connection()).execute(
                "INSERT INTO oauth_identities (id, user_id, provider, provider_user_id, username, sealed_access_token)"
                " VALUES ('i', $1, 'github', '7', 'ada', 'sealed')",
                ada.id,
            )
        assert (await get(identity, ada, "/detect"))["suggested_step"] == "welcome"
        organization = await identity.organization(ada)
        detected = await get(identity, ada, "/detect")
        assert detected["github"]["current"] == {"username": "ada"}
        assert detected["organization"]["current"]["id"] == organization
        assert detected["suggested_step"] == "repo"

        async def tell(service: str, message: Message, id_: str, version: int) -> None:
            settings = ServiceSettings(env="test", nats_url=nats_server.url, database_url=database(service).url)
            sender = Database(settings)
            async with sender.uow() as tx:
                tx.emit(message, aggregate_id=id_, version=version, organization_id=organization)
            await outbox_runner(Service(service, settings, AccessTable(), db=sender), identity.running.service)
            await sender.close()

        ready = vcs.RepositoryReady(project_id="p-1", url="/srv/app.git", github_owner="acme", github_repo="app")
        await tell("vcs", ready, "p-1", 1)
        await tell("workflow", workflow.ProjectUpdated(project_id="p-1", status="active"), "p-1", 2)
        await tell("workflow", workflow.ProjectCreated(project_id="p-1", name="P"), "p-1", 1)
        detected = await get(identity, ada, "/detect")
        assert detected["repo"]["current"] == {"owner": "acme", "name": "app", "project_id": "p-1"}
        assert detected["suggested_step"] == "plan"
        await tell("billing", billing.AccountCreated(account_id="a", tier="free"), "a", 1)
        assert (await get(identity, ada, "/detect"))["plan"]["completed"] is False
        await tell("billing", billing.AccountCreated(account_id="a", tier="pro"), "a", 2)
        detected = await get(identity, ada, "/detect")
        assert detected["plan"]["current"] == {"plan": "pro", "status": "active"}
        assert detected["suggested_step"] == "complete"
        changed = billing.AccountChanged(account_id="a", tier="team", sandbox_milliseconds_used=5_400_000)
        changed.period_ends_at.FromDatetime(utc_now() + timedelta(days=3))
        await tell("billing", changed, "a", 4)
        assert (await get(identity, ada, "/detect"))["plan"]["current"]["plan"] == "team"
        params = {"organization_id": organization}
        limits = (await identity.http.get("/api/v1/users/me/limits", params=params, headers=ada.headers)).json()
        assert (limits["plan"], limits["monthly_agent_hours_used"]) == ("team", 1.5)
        assert limits["billing_cycle_resets_at"] > utc_now().isoformat()
        await tell("workflow", workflow.ProjectArchived(project_id="p-1"), "p-1", 3)
        assert (await get(identity, ada, "/detect"))["suggested_step"] == "repo"
        eve = await identity.person()
        assert (await get(identity, eve, "/detect"))["repo"]["completed"] is False

    async def test_rebuilt_from_the_owners(self, start: Start, rpc_stub: Any) -> None:
        first = await start()
        ada = await first.person()
        organization = await first.organization(ada)
        target = await rpc_stub(Projects(organization), Repositories(organization), Plans())
        targets = {"workflow": target, "vcs": target, "billing": target}
        identity = await start(rpc_targets=targets, database_url=first.running.service.settings.database_url)
        read = {source.name: await source.rebuild() for source in identity.running.service.replicas}
        assert read == {"projects": 3, "repositories": 2, "plans": 1}
        detected = await get(first, ada, "/detect")
        assert detected["repo"]["current"] == {"owner": "acme", "name": "app", "project_id": "project-1"}
        assert detected["plan"]["current"] == {"plan": "team", "status": "active"}
