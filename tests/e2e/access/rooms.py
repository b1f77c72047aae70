"""Makes the rows that the recipes name, each through the public API as the owner of the first tenant.

A maker gives the rows of the names it is registered under; asked again it makes others.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any

from tests.e2e.access.callers import Cast
from tests.e2e.world import eventually

Rows = dict[str, str]
Maker = Callable[["Rooms"], Rows]
MAKERS: dict[str, Maker] = {}
FLEETING: set[Maker] = set()
"""Makers of rows that soon end by themselves, such as a sandbox whose lease runs out."""
BEAT_S = 2.0
NUMBERS = itertools.count(1)


def makes(*names: str, fleeting: bool = False) -> Callable[[Maker], Maker]:
    """Registers a maker of these rows."""

    def register(maker: Maker) -> Maker:
        if fleeting:
            FLEETING.add(maker)
        MAKERS.update(dict.fromkeys(names, maker))
        return maker

    return register


class Rooms:
    """Makes rows; those that nobody changes are made once and shared."""

    def __init__(self, cast: Cast) -> None:
        self.cast = cast
        self.owner = cast.owner
        self.shared: Rows = {
            "organization_id": cast.tenant.organization_id,
            "org_id": cast.tenant.organization_id,
            "project_id": cast.tenant.project_id,
            "viewer_role_id": cast.roles["viewer"],
            "member_role_id": cast.roles["member"],
        }
        self._workshop: str | None = None
        self._beaten = 0.0

    def of(self, names: Iterable[str], *, fresh: bool) -> Rows:
        """The rows of these names: shared ones, or new ones where somebody is going to change them."""
        found = {name: self.shared[name] for name in names if name in self.shared and name not in MAKERS}
        makers = {MAKERS[name] for name in names if name not in found}
        for maker in sorted(makers, key=lambda one: one.__name__):
            if fresh or maker in FLEETING:
                found |= maker(self)
                continue
            known = [name for name, one in MAKERS.items() if one is maker]
            if not all(name in self.shared for name in known):
                self.shared |= maker(self)
            found |= {name: self.shared[name] for name in known}
        return found

    def keep(self, rows: Rows) -> None:
        """Let the sandbox among the rows beat, so that its lease lasts while everybody calls."""
        if "sandbox_token" in rows and time.monotonic() - self._beaten > BEAT_S:
            self._beaten = time.monotonic()
            self.cast.world.http.post(
                f"/api/v1/sandboxes/{rows['sandbox_id']}/heartbeat",
                json={},
                headers={"Authorization": f"Bearer {rows['sandbox_token']}"},
            )

    def workshop(self) -> str:
        """A project whose tasks are there to be claimed."""
        if self._workshop is None:
            body = {
                "organization_id": self.cast.tenant.organization_id,
                "name": f"Workshop {secrets.token_hex(3)}",
                "repository_url": str(self.cast.tenant.repository),
                "settings": {"max_concurrent_tasks": -1},
            }
            project = str(self.owner.post("/projects", body)["id"])
            self.owner.ok("PATCH", f"/projects/{project}", {"autonomous_execution_enabled": True})
            eventually(
                lambda: self.owner.get(f"/projects/{project}")["repository_state"] == "ready", "the workshop is ready"
            )
            self._workshop = project
        return self._workshop

    def ticket(self, project: str, **fields: Any) -> str:
        """A new ticket with its first task."""
        number = next(NUMBERS)
        body = {"title": f"Ticket {number}", "description": f"Number {number}", "project_id": project}
        body |= {"phase_id": "PHASE_BACKLOG"} | fields
        return str(self.owner.post("/tickets", body)["id"])

    def task_of(self, ticket: str) -> str:
        """The first task of a ticket."""
        return str(self.owner.get("/tasks", ticket_id=ticket)[0]["id"])


def new_agent(rooms: Rooms, organization: str | None = None) -> tuple[str, str]:
    """(id, token) of a new agent."""
    person = rooms.owner if organization is None else rooms.cast.other.owner
    body = {
        "agent_type": "worker",
        "capabilities": ["python"],
        "capacity": 10,
        "organization_id": organization or rooms.cast.tenant.organization_id,
    }
    made = person.post("/agents/register", body)
    return made["agent_id"], made["token"]


def new_sandbox(rooms: Rooms) -> Rows:
    """A sandbox with a task of its own, claimed by an agent of its own."""
    agent_id, token = new_agent(rooms)
    task = rooms.task_of(rooms.ticket(rooms.workshop()))
    answer = rooms.cast.world.http.post(
        f"/api/v1/agents/{agent_id}/claim",
        json={"max": 1, "project_ids": [rooms.workshop()], "wait_s": 10},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert answer.is_success, answer.text
    assert answer.json()["claims"], f"{answer.text}, because {rooms.owner.get(f'/tasks/{task}/readiness')}"
    claim = answer.json()["claims"][0]
    return {
        "sandbox_id": claim["sandbox"]["id"],
        "sandbox_token": claim["sandbox"]["token"],
        "sandbox_task_id": claim["task"]["id"],
        "sandbox_ticket_id": claim["task"]["ticket_id"],
        "sandbox_agent_id": agent_id,
        "sandbox_agent_token": token,
    }


def complete(rooms: Rooms) -> None:
    """The machines of the cast, which need rows of their own."""
    cast = rooms.cast
    cast.tokens["agent"] = new_agent(rooms)[1]
    cast.tokens["foreign_agent"] = new_agent(rooms, cast.other.organization_id)[1]
    # These sandboxes never ran, so that no lease of theirs can end; what they show is signed by identity's own key.
    for name, tenant in (("sandbox", cast.tenant), ("other_sandbox", cast.tenant), ("foreign_sandbox", cast.other)):
        sandbox_id = f"sandbox-{secrets.token_hex(8)}"
        cast.tokens[name] = cast.keys.token(
            "sandbox",
            sandbox_id,
            org=tenant.organization_id,
            project=tenant.project_id,
            agent=f"agent-{secrets.token_hex(8)}",
            task=rooms.of(["task_id"], fresh=True)["task_id"],
            sandbox=sandbox_id,
            attempt=1,
        )
