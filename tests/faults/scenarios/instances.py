"""Two instances of every service behind Traefik."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import secrets
import time
from typing import Any
from urllib.parse import urlencode

import httpx2
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_now

from omoios_local.ports import SERVICES
from tests.faults import judge
from tests.faults.run import Run
from tests.faults.scenarios.processes import PROBES
from tests.faults.stack import eventually
from tests.faults.tenant import PASSWORD, Tenant

# A revocation reaches each process within a second; polled up to this.
SPREAD_S = 10.0
# Most of a rolling restart is waiting: until callers have noticed, and until they are through. So two go at a time, and
# a request may pass two services that are both just changing hands.
RESTARTED = tuple(zip(SERVICES[:3], SERVICES[3:], strict=True))
# As when one of two machines with half of everything dies.
KILLED = (SERVICES[:3], SERVICES[3:])
LEADERS = """
SELECT count(*)::int AS number FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND a.datname = $1 AND a.application_name LIKE $1 || ':relay:%'
"""


def instances(run: Run) -> None:
    """Two of everything from a cold start on, so that all know each other; the scenarios after it must bear that."""
    run.stack.client.stop(list(SERVICES))
    run.stack.client.up(instances=dict.fromkeys(SERVICES, 2))
    run.healthy(within_s=60)
    with run.case("exactly one relay a service") as case:
        case.problems += [f"{name}: {_relays(run, name)} relays" for name in SERVICES if _relays(run, name) != 1]
    with run.case("a revoked session is refused by all twelve processes"):
        revoked_everywhere(run, 2 * len(SERVICES))
    with run.case("a removed member is a stranger to both instances"):
        _removal(run)
    with run.case("the WebSocket of each instance tells the same"):
        asyncio.run(_sockets(run))
    for number in range(run.times):
        again = f", time {number + 1}" if number else ""
        for pair in RESTARTED:
            with run.case(f"rolling restart of {' and '.join(pair)}{again}") as case:
                began = run.load.history.now()
                run.stack.restart(*pair)
                run.healthy()
                case.problems += _felt(run, began)
        for group in KILLED:
            with run.case(f"kill -9 of one of two instances of {', '.join(group)}{again}") as case:
                began = run.load.history.now()
                for service in group:
                    run.stack.client.kill(service, "KILL", run.rng.choice((1, 2)))
                run.healthy()
                for service in group:
                    eventually(lambda name=service: run.stack.ready(name), f"{service} is whole again", 60)
                case.problems += judge.improper(run.since(began))
                for service in group:
                    eventually(lambda name=service: _relays(run, name) == 1, f"{service} has one relay again", 30)


def _felt(run: Run, began: float) -> list[str]:
    """A planned restart fails no request at all."""
    requests = run.since(began)
    broken = [item for item in requests if item.status in (0, 502, 503)]
    return judge.failed(requests, list(PROBES.values())) + (run.failures(began) if broken else [])


def _relays(run: Run, service: str) -> int:
    return int(run.stack.sql(service, LEADERS, service)[0]["number"])


def _person(run: Run, mark: str) -> tuple[httpx2.Client, dict[str, Any], dict[str, Any]]:
    """A new user beside the load: client of the gateway, the user, the pair of tokens."""
    http = httpx2.Client(base_url=f"{run.stack.url}/api/v1", timeout=30, trust_env=False)
    email = f"{mark}-{secrets.token_hex(4)}@example.com"
    user = _ok(http.post("/auth/register", json={"email": email, "password": PASSWORD, "full_name": mark}))
    tokens = _ok(http.post("/auth/login", json={"email": email, "password": PASSWORD}))
    http.cookies.clear()
    return http, user, tokens


def _ok(answer: httpx2.Response) -> Any:
    """The document of a success."""
    assert answer.is_success, f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:200]}"
    return answer.json() if answer.content else None


def _status(port: int, path: str, token: str) -> int:
    """Status of a read at one process, past the gateway."""
    url = f"http://127.0.0.1:{port}/api/v1{path}"
    return _direct().get(url, headers={"Authorization": f"Bearer {token}"}).status_code


@functools.cache
def _direct() -> httpx2.Client:
    """A client of single processes. It keeps no connection, for they come and go; making it costs more than a read."""
    return httpx2.Client(timeout=30, trust_env=False, limits=httpx2.Limits(max_keepalive_connections=0))


def _everywhere(run: Run, path: str, token: str, services: tuple[str, ...]) -> dict[int, int]:
    return {port: _status(port, path, token) for name in services for port in run.stack.ports(name)}


def revoked_everywhere(run: Run, processes: int) -> None:
    """A new session is let in by so many processes at once, and by none once it was ended."""
    http, user, tokens = _person(run, "revoked")
    token = tokens["access_token"]
    paths = {
        "identity": "/auth/me",
        "workflow": "/projects",
        "agents": "/agents",
        "monitoring": "/alerts",
        "billing": f"/billing/account/{secrets.token_hex(8)}",
        "vcs": f"/commits/ticket/{secrets.token_hex(8)}",
    }
    found = {port: _status(port, paths[name], token) for name in SERVICES for port in run.stack.ports(name)}
    assert len(found) == processes, f"{len(found)} processes"
    assert 401 not in found.values(), f"refused before the session ended: {found}"
    _ok(http.post("/auth/logout", json={}, headers={"Authorization": f"Bearer {token}"}))

    def refused() -> bool:
        answers = [_status(port, paths[name], token) for name in SERVICES for port in run.stack.ports(name)]
        return set(answers) == {401}

    eventually(refused, f"all of them refuse {user['id']}'s ended session", SPREAD_S)
    http.close()


def _removal(run: Run) -> None:
    """He, the agent that he registered and his WebSockets are refused or ended by both instances."""
    owner: Tenant = run.load.tenants[1]
    http, user, tokens = _person(run, "member")
    signed = {"Authorization": f"Bearer {owner.token}"}
    organization = f"/organizations/{owner.organization_id}"
    role = {"name": f"operator-{secrets.token_hex(4)}", "permissions": ["org:read", "project:read", "agent:*"]}
    role = _ok(http.post(f"{organization}/roles", json=role, headers=signed))
    body = {"user_id": user["id"], "role_id": role["id"]}
    member = _ok(http.post(f"{organization}/members", json=body, headers=signed))
    path, token = f"/projects/{owner.project_id}", tokens["access_token"]

    def statuses(path: str, token: str, *services: str) -> set[int]:
        return set(_everywhere(run, path, token, services).values())

    eventually(lambda: statuses(path, token, "workflow") == {200}, "both let the member in", SPREAD_S)
    body = {"agent_type": "worker", "capabilities": [], "capacity": 1, "organization_id": owner.organization_id}
    agent = eventually(lambda: _agent(http, body, token), "he may have agents", SPREAD_S)
    own = f"/agents/{agent['agent_id']}"
    assert statuses(own, agent["token"], "agents") == {200}
    with contextlib.ExitStack() as opened:
        sockets = [
            opened.enter_context(
                connect_now(f"ws://127.0.0.1:{port}/api/v1/ws/events?token={token}", proxy=None, open_timeout=20)
            )
            for port in run.stack.ports("monitoring")
        ]
        _ok(http.delete(f"{organization}/members/{member['id']}", headers=signed))
        codes = [_closed(socket) for socket in sockets]
        assert codes == [1008] * len(sockets), f"his sockets ended with {codes}"
    eventually(lambda: statuses(path, token, "workflow") == {404}, "both shut him out", SPREAD_S)
    eventually(lambda: statuses(own, agent["token"], "agents") == {401}, "both shut his agent out", SPREAD_S)
    http.close()


def _agent(http: httpx2.Client, body: dict[str, Any], token: str) -> dict[str, Any] | None:
    """The agent; None where he may not register one yet."""
    answer = http.post("/agents/register", json=body, headers={"Authorization": f"Bearer {token}"})
    return dict(answer.json()) if answer.is_success else None


def _closed(socket: ClientConnection) -> int:
    """The close code; 0 where it is still open after `SPREAD_S`."""
    deadline = time.monotonic() + SPREAD_S
    while (left := deadline - time.monotonic()) > 0:
        try:
            socket.recv(timeout=left)
        except TimeoutError:
            return 0
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 1006
    return 0


async def _sockets(run: Run) -> None:
    tenant = run.load.tenants[2]
    query = urlencode({"token": tenant.token, "event_types": "TICKET_CREATED"})
    heard: dict[int, set[str]] = {port: set() for port in run.stack.ports("monitoring")}
    assert len(heard) == 2, f"{len(heard)} instances of monitoring"

    async def listen(port: int) -> None:
        async with connect(f"ws://127.0.0.1:{port}/api/v1/ws/events?{query}", proxy=None, open_timeout=20) as socket:
            async for text in socket:
                frame = json.loads(text)
                if "event_type" in frame:
                    heard[port].add(frame["entity_id"])

    listeners = [asyncio.create_task(listen(port)) for port in heard]
    try:
        # The load goes on: whatever ticket is created now must come over both.
        first, second = heard
        deadline = time.monotonic() + 30
        while len(heard[first] & heard[second]) < 3:
            assert time.monotonic() < deadline, f"in common came {len(heard[first] & heard[second])} of {heard}"
            for listener in listeners:
                assert not listener.done(), f"a socket ended: {listener.exception()}"
            await asyncio.sleep(0.2)
    finally:
        for listener in listeners:
            listener.cancel()
        await asyncio.gather(*listeners, return_exceptions=True)
