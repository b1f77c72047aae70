"""A running monitoring service, events published to it, and clients of its streams."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from google.protobuf.message import Message
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

sys.path.insert(0, str(Path(__file__).parent))

from monitoring_peers import Agents, Billing, Workflow

from monitoring_service.main import build
from omoios.agents.events.v1 import events_pb2 as agents
from omoios.workflow.events.v1 import events_pb2 as workflow
from servicekit.clock import to_wire, utc_now
from servicekit.db.event_options import event_type
from servicekit.events import Bus
from servicekit.events.envelope import EVENT_ID
from servicekit.host import Running
from servicekit.ids import new_id
from servicekit.settings import ServiceSettings

ORGANIZATION = "org-1"
PROJECT = "project-1"
FRAME_S = 4.0


@dataclass
class World:
    """The service, its publisher, and the tokens of people in two organizations."""

    running: Running
    bus: Bus
    signing: Any
    owner: str
    viewer: str
    stranger: str
    workflow: Workflow = field(default_factory=Workflow)
    agents: Agents = field(default_factory=Agents)
    billing: Billing = field(default_factory=Billing)

    @property
    def http(self) -> Any:
        return self.running.http

    @property
    def db(self) -> Any:
        return self.running.service.db

    def auth(self, token: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"}

    async def get(self, path: str, token: str | None = None, **kw: Any) -> Any:
        return await self.http.get(f"/api/v1{path}", headers=self.auth(token or self.owner), **kw)

    async def post(self, path: str, body: Any = None, token: str | None = None, **kw: Any) -> Any:
        return await self.http.post(f"/api/v1{path}", json=body, headers=self.auth(token or self.owner), **kw)

    async def publish(
        self,
        message: Message,
        aggregate_id: str,
        version: int = 1,
        organization: str | None = ORGANIZATION,
        event_id: str | None = None,
    ) -> str:
        """Publish an event as its service's relay would; an `event_id` that was used makes it the same event again."""
        kind = event_type(type(message))
        event_id = event_id or new_id()
        headers = {
            "Nats-Msg-Id": new_id(),
            EVENT_ID: event_id,
            "Omoios-Type": kind.subject,
            "Omoios-Time": to_wire(utc_now()),
            "Omoios-Aggregate-Type": kind.aggregate,
            "Omoios-Aggregate-Id": aggregate_id,
            "Omoios-Version": str(version),
        }
        if organization is not None:
            headers["Omoios-Organization"] = organization
        await self.bus.publish_stored(kind.subject, message.SerializeToString(), headers)
        return event_id

    async def ticket(self, ticket_id: str, organization: str = ORGANIZATION, project: str = PROJECT) -> str:
        message = workflow.TicketCreated(
            ticket_id=ticket_id, project_id=project, title=f"Title of {ticket_id}", priority="HIGH", status="backlog"
        )
        return await self.publish(message, ticket_id, organization=organization)

    async def output(self, sandbox_id: str, lines: int, organization: str = ORGANIZATION, size: int = 10) -> str:
        events = [
            agents.SandboxEvent(
                event_id=new_id(),
                sequence=number + 1,
                event_type="agent.output",
                data_json=json.dumps({"line": "x" * size, "number": number}).encode(),
                source="agent",
            )
            for number in range(lines)
        ]
        message = agents.SandboxEventsRecorded(
            sandbox_id=sandbox_id, task_id="task-1", ticket_id="ticket-1", project_id=PROJECT, events=events
        )
        return await self.publish(message, sandbox_id, organization=organization)

    def url(self, path: str = "/api/v1/ws/events", running: Running | None = None, **query: object) -> str:
        pairs = urlencode({name: value for name, value in query.items() if value is not None})
        return f"ws://127.0.0.1:{(running or self.running).http_port}{path}?{pairs}"

    @contextlib.asynccontextmanager
    async def stream(
        self, token: str | None = None, path: str = "/api/v1/ws/events", running: Running | None = None, **query: object
    ) -> AsyncIterator[Client]:
        async with connect(self.url(path, running, token=token or self.owner, **query), max_size=None) as socket:
            client = Client(socket)
            # The answer to a frame tells that the stream is open: what is published from now on must come.
            await client.ask({"type": "subscribe"})
            yield client

    async def rows(self, query: str, *values: Any) -> list[Any]:
        async with self.db.reader() as tx:
            return await (await tx.connection()).fetch(query, *values)

    async def execute(self, statement: str, *values: Any) -> None:
        async with self.db.uow() as tx:
            await (await tx.connection()).execute(statement, *values)

    async def until(self, true: Callable[[], Awaitable[bool]], what: str, timeout_s: float = 8.0) -> None:
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not await true():
            assert asyncio.get_running_loop().time() < deadline, what
            await asyncio.sleep(0.02)

    async def eventually(self, query: str, value: object, *values: Any) -> None:
        """Wait until the query's first value is this."""
        seen: list[object] = []

        async def there() -> bool:
            rows = await self.rows(query, *values)
            seen[:] = [rows[0][0] if rows else None]
            return seen[0] == value

        await self.until(there, f"{query} gives {seen} instead of {value!r}")

    async def logged(self, count: int) -> None:
        """Wait until the log has so many events."""

        async def there() -> bool:
            return (await self.rows("SELECT count(*) FROM event_log"))[0][0] >= count

        await self.until(there, f"not {count} events in the log")


class Client:
    """One WebSocket client."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def read(self, timeout_s: float = FRAME_S) -> dict[str, Any]:
        async with asyncio.timeout(timeout_s):
            frame: dict[str, Any] = json.loads(await self.socket.recv())
        return frame

    async def reads(self, count: int, timeout_s: float = 10.0) -> list[dict[str, Any]]:
        async with asyncio.timeout(timeout_s):
            return [json.loads(await self.socket.recv()) for _ in range(count)]

    async def say(self, frame: Any) -> None:
        await self.socket.send(frame if isinstance(frame, str) else json.dumps(frame))

    async def ask(self, frame: Any) -> dict[str, Any]:
        """Send a frame and return its answer; frames of events in between are passed over."""
        await self.say(frame)
        while "event_type" in (answer := await self.read()) or answer.get("type") == "reset":
            continue
        return answer

    async def closed(self, timeout_s: float = 8.0) -> int | None:
        """The code with which the server ends the connection."""
        async with asyncio.timeout(timeout_s):
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await self.socket.recv()
            await self.socket.wait_closed()
        return self.socket.close_code


@pytest.fixture
async def publisher(nats_server: Any) -> AsyncIterator[Bus]:
    bus = Bus(ServiceSettings(env="test", nats_url=nats_server.url))
    await bus.start()
    await bus.wait_connected(5)
    yield bus
    await bus.close()


@pytest.fixture
async def start(service_host: Any, signing: Any, publisher: Bus, rpc_stub: Any) -> Callable[..., Awaitable[World]]:
    async def started(**settings: Any) -> World:
        peers = Workflow(), Agents(), Billing()
        target = await rpc_stub(*peers)
        targets = {"workflow": target, "agents": target, "billing": target}
        options = {"worker": True, "listen": True, "stream_poll_s": 0.5, "rpc_targets": targets} | settings
        running = await service_host(build, "monitoring", **options)
        for job in running.service.jobs:
            if job.name == "event-log-days":
                await job.run()
        return World(
            running,
            publisher,
            signing,
            owner=await signing.user("user-1", ORGANIZATION, "owner"),
            viewer=await signing.user("user-2", ORGANIZATION, "viewer"),
            stranger=await signing.user("user-3", "org-2", "owner"),
            workflow=peers[0],
            agents=peers[1],
            billing=peers[2],
        )

    return started


@pytest.fixture
async def world(start: Any) -> World:
    world: World = await start()
    return world
