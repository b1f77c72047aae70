"""Two tenants at work at once: neither sees a frame of the other, however he asks."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.e2e.access.callers import Cast
from tests.e2e.live import Stream, stream
from tests.e2e.world import Person, Tenant, World

ROUNDS = 4
READ_CEILING_S = 30.0


def work(tenant: Tenant, number: int) -> str:
    """Something that every stream of the tenant tells of; returns the ticket's id."""
    body = {"title": f"Stream {number} {time.monotonic()}", "project_id": tenant.project_id}
    return str(tenant.owner.post("/tickets", body)["id"])


def sees(frames: Stream, ticket: str) -> dict[str, Any]:
    return frames.until(lambda frame: frame["event_type"] == "TICKET_CREATED" and frame["entity_id"] == ticket)


def told(world: World, person: Person, last: str, **query: Any) -> str:
    """What Server-Sent Events tell this person up to the ticket `last`."""
    headers = {"Authorization": f"Bearer {person.token}"}
    lines: list[str] = []
    deadline = time.monotonic() + READ_CEILING_S
    with world.http.stream("GET", "/api/v1/events/stream", params=query, headers=headers) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            lines.append(line)
            if last in line or time.monotonic() > deadline:
                break
    text = "\n".join(lines)
    assert last in text, f"{last} did not come within {READ_CEILING_S:g} s"
    return text


def test_neither_tenant_is_told_of_the_other(world: World, everybody: Cast) -> None:
    mine, foreign = everybody.tenant, everybody.other
    with (
        stream(world, mine.owner.token) as own,
        stream(world, foreign.owner.token) as theirs,
        stream(world, foreign.owner.token, entity_ids=f"{mine.project_id},{mine.organization_id}") as curious,
    ):
        made: dict[str, list[str]] = {"mine": [], "foreign": []}
        for number in range(ROUNDS):
            made["mine"].append(work(mine, number))
            made["foreign"].append(work(foreign, number))
        first = sees(own, made["mine"][0])
        sees(own, made["mine"][-1])
        sees(theirs, made["foreign"][-1])
        curious.drain(1.0)
        own.drain(0.5)
        theirs.drain(0.5)
    hidden = {
        "mine": [*made["mine"], mine.project_id, mine.organization_id, mine.owner.user_id],
        "foreign": [*made["foreign"], foreign.project_id, foreign.organization_id, foreign.owner.user_id],
    }

    def leaks(text: str, whose: str) -> list[str]:
        return [one for one in hidden[whose] if one in text]

    assert curious.frames == []
    assert leaks(json.dumps(theirs.frames), "mine") == []
    assert leaks(json.dumps(own.frames), "foreign") == []
    # Resuming where the other tenant's frames began brings back one's own only, over either kind of stream.
    before = str(int(first["sequence"]) - 1)
    with (
        stream(world, foreign.owner.token, after=before) as again,
        stream(world, foreign.owner.token, after=before, entity_ids=made["mine"][0]) as prying,
    ):
        for ticket in made["foreign"]:
            sees(again, ticket)
        prying.drain(1.0)
    assert leaks(json.dumps(again.frames), "mine") == []
    assert prying.frames == []
    assert leaks(told(world, foreign.owner, made["foreign"][-1], after=before), "mine") == []
    assert leaks(told(world, mine.owner, made["mine"][-1], after=before), "foreign") == []


def test_strangers_and_false_credentials_are_told_nothing(world: World, everybody: Cast) -> None:
    refused = ("forged", "wrong_audience", "wrong_issuer", "expired", "refresh_token", "unknown_key")
    with stream(world, everybody.owner.token) as own:
        with stream(world, everybody.tokens["stranger"] or "") as nothing:
            sees(own, work(everybody.tenant, 99))
            nothing.drain(0.5)
            assert nothing.frames == []
        for name in refused:
            with stream(world, everybody.tokens[name] or "") as nothing:
                assert nothing.wait_closed() == 4401, name
                assert nothing.frames == [], name


def test_a_removed_member_is_told_nothing_more_even_when_he_resumes(world: World, everybody: Cast) -> None:
    tenant, organization = everybody.tenant, f"/organizations/{everybody.tenant.organization_id}"
    member = world.register()
    joined = tenant.owner.post(
        f"{organization}/members", {"user_id": member.user_id, "role_id": everybody.roles["member"]}
    )
    with stream(world, tenant.owner.token) as own, stream(world, member.token) as live:
        seen = work(tenant, 1)
        sequence = int(sees(live, seen)["sequence"])
        tenant.owner.ok("DELETE", f"{organization}/members/{joined['id']}")
        # Every service is told within seconds; the first frame after that is the first that must not come.
        deadline = time.monotonic() + READ_CEILING_S
        while member.call("GET", f"/projects/{tenant.project_id}").status_code == 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        time.sleep(2.5)
        later = work(tenant, 2)
        sees(own, later)
        live.drain(1.0)
        assert later not in json.dumps(live.frames)
    with stream(world, member.token, after=str(sequence - 1)) as again:
        again.drain(1.0)
    assert seen not in json.dumps(again.frames)
    assert later not in json.dumps(again.frames)
