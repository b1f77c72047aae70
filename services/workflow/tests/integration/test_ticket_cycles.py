"""Tickets never wait for each other in a circle, however long it is and whoever closes it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any


async def ticket(
    flow: Any, project: Any, status: int = 200, *, after: Sequence[str] = (), before: Sequence[str] = ()
) -> Any:
    body = {
        "title": f"One of {status} {after} {before}",
        "project_id": project["id"],
        "phase_id": "PHASE_BACKLOG",
        "dependencies": {"blocked_by": list(after), "blocks": list(before)},
        "check_duplicates": False,
    }
    return await flow.call("POST", "/tickets", status, json=body)


async def test_a_cycle_over_many_tickets_is_refused_with_its_ids(flow: Any) -> None:
    project = await flow.project()
    chain = [(await ticket(flow, project))["id"]]
    for _ in range(5):
        chain.append((await ticket(flow, project, after=[chain[-1]]))["id"])
    refused = await ticket(flow, project, 422, after=[chain[-1]], before=[chain[0]])
    (error,) = refused["detail"]
    assert error["loc"] == ["body", "dependencies", "blocks"]
    assert error["input"] == chain
    assert " → ".join(["this ticket", *chain, "this ticket"]) in error["msg"]
    assert (await flow.call("GET", "/tickets"))["total"] == len(chain), "nothing of the refused one is left"
    # The same tickets the other way round are no cycle.
    await ticket(flow, project, after=[chain[0]], before=[chain[-1]])


async def test_two_at_once_do_not_close_a_cycle_together(flow: Any) -> None:
    project = await flow.project()
    for _ in range(5):
        a, b = [(await ticket(flow, project))["id"] for _ in range(2)]
        body = {"title": "t", "project_id": project["id"], "phase_id": "PHASE_BACKLOG", "check_duplicates": False}
        answers = await asyncio.gather(
            *(
                flow.http.post(
                    "/api/v1/tickets",
                    json=body | {"dependencies": {"blocked_by": [one], "blocks": [other]}},
                    headers=flow.headers,
                )
                for one, other in ((a, b), (b, a))
            )
        )
        assert sorted(answer.status_code for answer in answers) == [200, 422]


async def test_two_at_once_do_not_close_a_cycle_of_tasks(flow: Any) -> None:
    project = await flow.project()
    waits = await ticket(flow, project)

    async def task(*depends_on: str) -> str:
        body = {"ticket_id": waits["id"], "title": "t", "description": "d"}
        body |= {"dependencies": {"depends_on": list(depends_on)}} if depends_on else {}
        return str((await flow.call("POST", "/tasks", 201, json=body))["id"])

    for _ in range(5):
        c, a = await task(), await task()
        b, d = await task(c), await task(a)
        answers = await asyncio.gather(
            *(
                flow.http.post(f"/api/v1/tasks/{one}/dependencies", json={"depends_on": [other]}, headers=flow.headers)
                for one, other in ((a, b), (c, d))
            )
        )
        assert sorted(answer.status_code for answer in answers) == [200, 400]
