"""Who gets in, and the one retry after a refresh of the memberships."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter

from servicekit.auth.access import AGENTS, PUBLIC, Access
from servicekit.auth.dependencies import CurrentUser, OptionalUser
from servicekit.auth.principal import Membership
from servicekit.errors import ErrorSpec, Kind
from servicekit.http import HotRequest, HotRoute

MISSING = ErrorSpec("kit.missing", Kind.NOT_FOUND, "This does not exist.")
MEMBER = {"org-1": Membership("org-1", "member", frozenset({"ticket:read"}))}


class Door:
    def __init__(self) -> None:
        self.calls = 0

    def router(self) -> APIRouter:
        made = APIRouter(prefix="/api/v1/door", tags=["door"])

        @made.get("/me")
        async def me(user: CurrentUser) -> str:
            return user.id

        @made.get("/maybe")
        async def maybe(user: OptionalUser) -> str | None:
            return user.id if user else None

        @made.get("/agents")
        async def agents(user: CurrentUser) -> str:
            return user.id

        @made.post("/org/{organization_id}")
        async def guarded(organization_id: str, body: dict[str, int], user: CurrentUser) -> int:
            self.calls += 1
            user.require("ticket:read", organization_id, MISSING)
            return body["n"]

        return made

    async def hot(self, call: HotRequest) -> dict[str, Any]:
        self.calls += 1
        call.principal.require("ticket:read", call.path_params["organization_id"], MISSING)
        return {"n": call.body["n"]}


@pytest.fixture
def door() -> Door:
    return Door()


OPERATIONS = {"door.maybe": PUBLIC, "door.agents": Access(principals=AGENTS)}


async def test_credentials(serve: Any, door: Door) -> None:
    async with serve(door.router(), operations=OPERATIONS) as http:
        assert (await http.get("/api/v1/door/me")).json() == "ada"
        assert (await http.get("/api/v1/door/maybe")).json() == "ada"
        forged = await http.get("/api/v1/door/me", headers={"Authorization": "Bearer forged"})
        wrong_type = await http.get("/api/v1/door/agents")
        agent = await http.get("/api/v1/door/agents", headers={"Authorization": "Bearer agent-1"})
        agent_elsewhere = await http.get("/api/v1/door/me", headers={"Authorization": "Bearer agent-1"})
        del http.headers["Authorization"]
        nobody = await http.get("/api/v1/door/me")
        maybe = await http.get("/api/v1/door/maybe")
        # Whoever is refused learns nothing about the body either.
        unread = await http.post("/api/v1/door/org/org-1", content=b"{", headers={"content-type": "application/json"})
    for answer in (forged, nobody, unread):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["code"] == "auth.unauthenticated"
    assert (wrong_type.status_code, wrong_type.json()["code"]) == (403, "auth.forbidden")
    assert agent.json() == "agent-1"
    assert agent_elsewhere.status_code == 403
    assert (maybe.status_code, maybe.json()) == (200, None)


@pytest.mark.parametrize("path", ["/api/v1/door/org/org-1", "/api/v1/hot-door/org-1"])
async def test_a_refusal_is_cured_by_one_refresh(serve: Any, doorkeeper: Any, door: Door, path: str) -> None:
    hot = HotRoute(
        "hot.guarded", "/api/v1/hot-door/{organization_id}", methods=["POST"], endpoint=door.hot, request=dict[str, int]
    )
    async with serve(door.router(), operations=OPERATIONS, hot_routes=[hot]) as http:
        refused = await http.post(path, json={"n": 1})
        assert (refused.status_code, refused.json()["code"]) == (404, "kit.missing")
        assert (door.calls, doorkeeper.refreshed) == (1, 1)

        doorkeeper.fresh["ada"] = MEMBER
        cured = await http.post(path, json={"n": 2})
        assert cured.status_code == 200
        assert (door.calls, doorkeeper.refreshed) == (3, 2)

        doorkeeper.memberships["ada"] = MEMBER
        await http.post(path, json={"n": 3})
        assert (door.calls, doorkeeper.refreshed) == (4, 2)

        doorkeeper.fresh["ada"] = {}
        doorkeeper.memberships["ada"] = {}
        again = await http.post(path, json={"n": 4})
        assert again.status_code == 404
        assert (door.calls, doorkeeper.refreshed) == (6, 3)


async def test_a_refusal_that_cannot_be_checked_is_not_final(serve: Any, doorkeeper: Any, door: Door) -> None:
    doorkeeper.away = True
    async with serve(door.router(), operations=OPERATIONS) as http:
        answer = await http.post("/api/v1/door/org/org-1", json={"n": 1})
    assert (answer.status_code, answer.json()["code"]) == (503, "auth.memberships_unavailable")
    assert answer.headers["retry-after"] == "1"
    assert door.calls == 1
