"""A running agents service with its peers, and what the tests do with it again and again."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from peers import Identity, QueuedTask, Vcs, Workflow
from runner_world import git_server, open_folder, working  # noqa: F401 - fixtures of the tests beside this file

from agents_service.main import build
from servicekit.auth.access import AccessTable
from servicekit.db import Database
from servicekit.host import Service
from servicekit.settings import ServiceSettings

ORGANIZATION = "org-1"


@dataclass
class World:
    """The service, its peers, and the tokens of an owner, a viewer and a stranger."""

    running: Any
    workflow: Workflow
    vcs: Vcs
    identity: Identity
    signing: Any
    owner: str
    viewer: str
    stranger: str

    @property
    def http(self) -> Any:
        return self.running.http

    @property
    def db(self) -> Any:
        return self.running.service.db

    def auth(self, token: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"}

    async def post(self, path: str, body: Any = None, token: str | None = None, **kw: Any) -> Any:
        return await self.http.post(f"/api/v1{path}", json=body, headers=self.auth(token or self.owner), **kw)

    async def get(self, path: str, token: str | None = None, **kw: Any) -> Any:
        return await self.http.get(f"/api/v1{path}", headers=self.auth(token or self.owner), **kw)

    async def register(self, **body: Any) -> dict[str, Any]:
        answer = await self.post("/agents/register", {"agent_type": "worker", "capabilities": ["Python"], **body})
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def claim(self, agent: dict[str, Any], **body: Any) -> Any:
        answer = await self.post(f"/agents/{agent['agent_id']}/claim", body, agent["token"])
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def sandbox(self, task_id: str = "task-1", **task: Any) -> dict[str, Any]:
        """One claimed task: the claim as answered, with its agent under `agent`."""
        self.workflow.add(QueuedTask(task_id, ORGANIZATION, **task))
        agent = await self.register()
        answer = await self.claim(agent)
        assert len(answer["claims"]) == 1, answer
        return answer["claims"][0] | {"agent": agent}

    async def rows(self, query: str, *values: Any) -> list[Any]:
        async with self.db.reader() as tx:
            return await (await tx.connection()).fetch(query, *values)

    async def execute(self, statement: str, *values: Any) -> None:
        async with self.db.uow() as tx:
            await (await tx.connection()).execute(statement, *values)

    async def subjects(self) -> list[str]:
        return [row[0] for row in await self.rows("SELECT subject FROM outbox ORDER BY seq")]


@pytest.fixture
async def world_parts(rpc_stub: Any, signing: Any) -> tuple[Workflow, Vcs, Identity, str]:
    """The peers and where they are served."""
    workflow, vcs, identity = Workflow(), Vcs(), Identity(signing)
    return workflow, vcs, identity, await rpc_stub(workflow, vcs, identity)


@pytest.fixture
async def world(service_host: Any, world_parts: Any, signing: Any) -> World:
    workflow, vcs, identity, target = world_parts
    running = await service_host(
        build, "agents", rpc_targets={"workflow": target, "vcs": target, "identity": target}, claim_poll_s=0.2
    )
    for user_id, organization_id, role in (
        ("user-1", ORGANIZATION, "owner"),
        ("user-2", ORGANIZATION, "viewer"),
        ("user-3", "org-2", "owner"),
    ):
        identity.member(user_id, organization_id, role)
    return World(
        running,
        workflow,
        vcs,
        identity,
        signing,
        owner=await signing.user("user-1", ORGANIZATION, "owner"),
        viewer=await signing.user("user-2", ORGANIZATION, "viewer"),
        stranger=await signing.user("user-3", "org-2", "owner"),
    )


@pytest.fixture
def tell(database: Any, nats_server: Any, outbox_runner: Any) -> Any:
    """`await tell(service, (task_id, message), …)`: workflow's facts, through its outbox and relay to the consumers."""

    async def send(service: Service, *messages: tuple[str, Any]) -> None:
        settings = ServiceSettings(env="test", nats_url=nats_server.url, database_url=database("agents").url)
        sender = Database(settings)
        teller = Service("workflow", settings, AccessTable(), db=sender)
        async with sender.uow() as tx:
            for aggregate_id, message in messages:
                tx.emit(message, aggregate_id=aggregate_id, organization_id=ORGANIZATION)
        await outbox_runner(teller, service)
        await sender.close()

    return send
