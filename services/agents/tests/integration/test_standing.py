"""The standing of a runner's agent: closed, quarantined, given up, replaced, retired."""

from __future__ import annotations

from typing import Any

import pytest


class Office:
    """What an operator does with the agents of a runner."""

    def __init__(self, working: Any) -> None:
        self._working = working
        self._http = working.running.http
        self._db = working.running.service.db
        self._headers = {"Authorization": f"Bearer {working.owner}"}

    async def agents(self) -> dict[str, str]:
        """Agent id to status, oldest first."""
        async with self._db.reader() as tx:
            rows = await (await tx.connection()).fetch("SELECT id, status FROM agents ORDER BY created_at, id")
        return {row["id"]: row["status"] for row in rows}

    async def one(self) -> str:
        """The id of the only agent, once it has joined."""
        await self._working.until_true(self.agents)
        (agent_id,) = await self.agents()
        return agent_id

    async def until(self, agent_id: str, status: str) -> None:
        """Wait until the agent has the status."""

        async def there() -> bool:
            return (await self.agents())[agent_id] == status

        await self._working.until_true(there)

    async def available(self, agent_id: str, available: bool) -> None:
        answer = await self._http.post(
            f"/api/v1/agents/{agent_id}/availability", json={"available": available}, headers=self._headers
        )
        assert answer.status_code == 200, answer.text

    async def move(self, agent_id: str, status: str) -> None:
        answer = await self._http.patch(f"/api/v1/agents/{agent_id}", json={"status": status}, headers=self._headers)
        assert answer.status_code == 200, answer.text

    async def beats(self, agent_id: str, more: int) -> None:
        """Wait until so many more heartbeats of the agent were counted."""

        async def last() -> int:
            async with self._db.reader() as tx:
                query = "SELECT sequence_number FROM agents WHERE id = $1"
                return await (await tx.connection()).fetchval(query, agent_id)

        wanted = await last() + more

        async def heard() -> bool:
            return await last() >= wanted

        await self._working.until_true(heard)

    async def give_up(self, agent_id: str) -> None:
        """What the sweep does after a minute and a half of silence."""
        async with self._db.uow() as tx:
            await (await tx.connection()).execute("UPDATE agents SET status = 'FAILED' WHERE id = $1", agent_id)


@pytest.fixture
def office(working: Any) -> Office:
    return Office(working)


async def test_a_closed_agent_stays_closed_and_works_again_when_opened(working: Any, office: Office) -> None:
    working.runners.start()
    agent_id = await office.one()
    await office.available(agent_id, False)
    task = working.add("task-a", "true", attempts=9)
    await office.beats(agent_id, 2)
    assert await office.agents() == {agent_id: "DEGRADED"}, "no heartbeat opens it, and nobody joined in its place"
    assert task.status == "pending"
    await office.available(agent_id, True)
    await working.until(lambda: task.status == "completed")
    assert list(await office.agents()) == [agent_id]


async def test_a_quarantined_agent_is_not_replaced(working: Any, office: Office) -> None:
    runner = working.runners.start()
    agent_id = await office.one()
    await office.move(agent_id, "QUARANTINED")
    task = working.add("task-a", "true", attempts=9)
    await working.until(lambda: working.runners.said().count("no tasks are given") >= 2)
    assert await office.agents() == {agent_id: "QUARANTINED"}
    assert runner.poll() is None
    await office.move(agent_id, "IDLE")
    await working.until(lambda: task.status == "completed")
    assert list(await office.agents()) == [agent_id]


async def test_an_agent_that_was_given_up_is_replaced_once_and_taken_out_of_service(
    working: Any, office: Office
) -> None:
    task = working.add("task-a", "sleep 3", attempts=9)
    working.runners.start(slots="2")
    await working.until(lambda: task.status == "running")
    agent_id = await office.one()
    await office.give_up(agent_id)
    await working.until(lambda: task.status == "completed")
    assert task.attempt == 1, "the work in hand goes on under its own token"
    await office.until(agent_id, "TERMINATED")
    former, new = (await office.agents()).items()
    assert former == (agent_id, "TERMINATED")
    assert new[1] == "IDLE"


async def test_a_runner_that_stops_retires_its_agent(working: Any, office: Office) -> None:
    task = working.add("task-a", "sleep 60", attempts=9)
    runner = working.runners.start()
    await working.until(lambda: task.status == "running")
    agent_id = await office.one()
    assert await working.runners.stop(runner) == 0
    assert task.status == "pending"
    assert await office.agents() == {agent_id: "TERMINATED"}, working.runners.said()
