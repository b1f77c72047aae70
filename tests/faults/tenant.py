"""The people, organizations and projects that the load belongs to."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from tests.faults.caller import PAUSES_S, Answer, Caller

PASSWORD = "Walk-the-Whole-Way-1!"
# Below the life of an access token that the runs set (3,600 s).
SIGN_IN_AGAIN_AFTER_S = 2_400.0


class SetUpFailed(RuntimeError):
    """The load could not be prepared on a healthy stack."""


@dataclass
class Tenant:
    """An organization with its owner, and what the load made in it so far."""

    name: str
    email: str
    user_id: str = ""
    organization_id: str = ""
    project_id: str = ""
    token: str = ""
    signed_in_at: float = 0.0
    agent_id: str = ""
    agent_token: str = ""
    tickets: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=60))
    """`{"id", "status"}` of tickets that were acknowledged; the status as last heard."""
    backlogged: bool = False
    """Whether more tasks wait than the fake runner takes; then nothing is made that brings new ones."""
    last_sequence: int | None = None
    """The number of the last frame that the reader of the WebSocket saw."""


async def made(caller: Caller, name: str, mark: str, *, agent: bool = True) -> Tenant:
    """A registered and signed-in owner with an organization, an autonomous project and, if wanted, an agent."""
    tenant = Tenant(name, f"{name}-{mark}@example.com")
    body = {"email": tenant.email, "password": PASSWORD, "full_name": f"Owner of {name}"}
    registered = await must(caller, "register", "POST", "/auth/register", "", body)
    tenant.user_id = registered["id"]
    await sign_in(caller, tenant)
    organization = {"name": f"{name} {mark}", "slug": f"{name}-{mark}"}
    tenant.organization_id = (await must(caller, "set-up", "POST", "/organizations", tenant.token, organization))["id"]
    limits = {"max_concurrent_agents": 50}
    await must(caller, "set-up", "PATCH", f"/organizations/{tenant.organization_id}", tenant.token, limits)
    project = {
        "organization_id": tenant.organization_id,
        "name": f"Project of {name}",
        "settings": {"max_concurrent_tasks": 50},
    }
    tenant.project_id = (await must(caller, "set-up", "POST", "/projects", tenant.token, project))["id"]
    path = f"/projects/{tenant.project_id}"
    await must(caller, "set-up", "PATCH", path, tenant.token, {"autonomous_execution_enabled": True})
    if agent:
        await join(caller, tenant)
    return tenant


async def must(caller: Caller, kind: str, method: str, path: str, token: str, body: Any) -> Any:
    """The document of a success. Raises SetUpFailed."""
    answer = Answer(0, None)
    for pause in PAUSES_S:
        answer = await caller.request(kind, method, path, token, body)
        if answer.ok:
            return answer.document
        if answer.refused:
            break
        await asyncio.sleep(pause)
    raise SetUpFailed(f"{method} {path}: {answer.status} {answer.document} {answer.error}")


async def sign_in(caller: Caller, tenant: Tenant) -> None:
    body = {"email": tenant.email, "password": PASSWORD}
    tenant.token = (await must(caller, "login", "POST", "/auth/login", "", body))["access_token"]
    tenant.signed_in_at = time.monotonic()


async def join(caller: Caller, tenant: Tenant) -> None:
    """Register an agent for the tenant's fake runner."""
    body = {"agent_type": "worker", "capabilities": [], "capacity": 200, "organization_id": tenant.organization_id}
    agent = await must(caller, "register-agent", "POST", "/agents/register", tenant.token, body)
    tenant.agent_id, tenant.agent_token = agent["agent_id"], agent["token"]
