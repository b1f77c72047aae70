"""The queue on a real database against a naive model: any sequence of claims, reports, ends and dependencies.

The model knows what a task's state is, who holds it and what it depends on, and works out from that alone what may be
claimed and what is held because something above it is lost. After each step the rows must say the same.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from servicekit.errors import AppError
from servicekit.ids import new_id
from servicekit.testing.profiles import examples
from workflow_service.dag import rules as dag
from workflow_service.queue import rules
from workflow_service.queue.claims_service import AttemptRef
from workflow_service.queue.rules import Attempt, Hold

from .machine_world import World

TASKS = 4
PLACES = st.integers(0, TASKS - 1)
LOST = ("failed", "cancelled")
_ROWS = """
SELECT id, status, attempt, sandbox_id, holds, unmet_dependencies, version, retry_count, leases_lost,
    not_before IS NOT NULL AS waits
FROM tasks WHERE organization_id = $1 ORDER BY id
"""
_EDGES = """
SELECT d.task_id, d.depends_on_id, d.satisfied FROM task_dependencies d
JOIN tasks t ON t.id = d.task_id WHERE t.organization_id = $1
"""


@dataclass
class Known:
    """What the model knows of a task."""

    id: str
    status: str = "pending"
    attempt: int = 0
    sandbox: str | None = None
    retries: int = 0
    leases_lost: int = 0
    releases: int = 0
    waits: bool = False
    depends_on: set[str] = field(default_factory=set)
    version: int = 0


class QueueMachine(RuleBasedStateMachine):
    """Four tasks of one organization."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.organization = new_id()
        ids = self.world.do(self.world.tasks(self.organization))
        self.known = {task_id: Known(task_id) for task_id in ids}
        self.order = ids
        self.refs: list[AttemptRef] = []

    def at(self, place: int) -> Known:
        return self.known[self.order[place]]

    def holds(self, ref: AttemptRef) -> bool:
        task = self.known[ref.task_id]
        return task.status in rules.LEASED and (task.attempt, task.sandbox) == (ref.attempt, ref.sandbox_id)

    def is_ready(self, task: Known) -> bool:
        met = all(self.known[one].status == "completed" for one in task.depends_on)
        return task.status == "pending" and not task.waits and met

    def is_held(self, task: Known) -> bool:
        """Whether something above, that is not done yet, is lost."""
        above = [self.known[one] for one in task.depends_on if self.known[one].status != "completed"]
        return any(one.status in LOST or self.is_held(one) for one in above)

    def back(self, task: Known) -> None:
        task.status, task.sandbox = "pending", None

    def prolong_waits(self) -> None:
        """A pause of a second may end between two steps; here only `wait` ends pauses."""
        self.world.do(
            self.world.fetch(
                "UPDATE tasks SET not_before = not_before + interval '1 day' WHERE organization_id = $1"
                " AND not_before IS NOT NULL",
                self.organization,
            )
        )

    @initialize(edges=st.sets(st.sampled_from(list(itertools.combinations(range(TASKS), 2))), max_size=4))
    def planned(self, edges: set[tuple[int, int]]) -> None:
        for place in range(TASKS):
            before = {one for one, after in edges if after == place}
            if before:
                self.depend(place=place, others=before, replace=True)

    # What runners do

    @rule(maximum=st.integers(1, 3))
    def claim(self, maximum: int) -> None:
        ready = {task.id for task in self.known.values() if self.is_ready(task)}
        sandboxes = [new_id("sandbox-") for _ in range(maximum)]
        found = self.world.do(
            self.world.claims.claim(
                organization_ids=[self.organization], agent_id="a-1", maximum=maximum, sandbox_ids=sandboxes
            )
        )
        assert len(found) == min(maximum, len(ready))
        for claimed in found:
            assert claimed.id in ready
            task = self.known[claimed.id]
            assert claimed.attempt == task.attempt + 1
            task.status, task.attempt, task.sandbox = "assigned", claimed.attempt, claimed.sandbox_id
            self.refs.append(AttemptRef(claimed.id, claimed.attempt, claimed.sandbox_id))
        self.check()

    @precondition(lambda self: self.refs)
    @rule(data=st.data(), action=st.sampled_from(["start", "heartbeat", "release"]))
    def speak(self, data: st.DataObject, action: str) -> None:
        ref = data.draw(st.sampled_from(self.refs))
        held, task = self.holds(ref), self.known[ref.task_id]
        claims = self.world.claims
        if action == "start":
            (answer,) = self.world.do(claims.start([ref]))
            if held:
                task.status = "running"
        elif action == "heartbeat":
            (answer,) = self.world.do(claims.heartbeat([ref], 60))
        else:
            (answer,) = self.world.do(claims.release([ref], ""))
            if held:
                self.back(task)
                task.releases += 1
                task.waits = task.releases > self.world.settings.free_releases
                self.prolong_waits()
            held = False
        assert (answer.state is Attempt.HELD) == held
        self.check()

    @precondition(lambda self: self.refs)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        ref = data.draw(st.sampled_from(self.refs))
        held, task = self.holds(ref), self.known[ref.task_id]
        own = task.status == "completed" and (task.attempt, task.sandbox) == (ref.attempt, ref.sandbox_id)
        refused = self.world.refusal(self.world.claims.complete(ref, {"by": ref.sandbox_id}, "", ""))
        assert refused == (None if held or own else "workflow.attempt_superseded")
        if held:
            task.status = "completed"
        self.check()

    @precondition(lambda self: self.refs)
    @rule(data=st.data(), permanent=st.booleans())
    def fail(self, data: st.DataObject, permanent: bool) -> None:
        ref = data.draw(st.sampled_from(self.refs))
        held, task = self.holds(ref), self.known[ref.task_id]
        refused = self.world.refusal(self.world.claims.fail(ref, "boom", {}, permanent))
        # The same report again is answered as the first time.
        assert refused in (None, *([] if held else ["workflow.attempt_superseded"]))
        if held and not permanent and task.retries < 2:
            self.back(task)
            task.retries += 1
            task.releases = 0
            task.waits = True
            self.prolong_waits()
        elif held:
            task.status = "failed"
        self.check()

    # What time does

    @rule(place=PLACES)
    def expire(self, place: int) -> None:
        task = self.at(place)
        self.world.do(
            self.world.fetch(
                "UPDATE tasks SET lease_expires_at = clock_timestamp() - interval '1 second'"
                " WHERE id = $1 AND lease_expires_at IS NOT NULL",
                task.id,
            )
        )
        self.world.do(self.world.claims.sweep())
        if task.status in rules.LEASED:
            task.leases_lost += 1
            if task.leases_lost >= self.world.settings.lease_loss_limit:
                task.status = "failed"
            else:
                self.back(task)
        self.check()

    @rule(place=PLACES)
    def wait(self, place: int) -> None:
        task = self.at(place)
        self.world.do(
            self.world.fetch(
                "UPDATE tasks SET not_before = clock_timestamp() WHERE id = $1 AND not_before IS NOT NULL", task.id
            )
        )
        self.world.do(self.world.claims.sweep())
        task.waits = False
        self.check()

    # What people do

    @rule(place=PLACES, action=st.sampled_from(["cancel", "fail", "retry"]))
    def decide(self, place: int, action: str) -> None:
        task, queue = self.at(place), self.world.queue
        ended = task.status in rules.ENDED

        async def act() -> None:
            async with self.world.db.uow() as tx:
                if action == "cancel":
                    await queue.cancel_one(tx, task.id, "no longer wanted")
                elif action == "fail":
                    await queue.fail_one(tx, task.id, "by hand", "user")
                else:
                    await queue.retry(tx, task.id)

        possible = task.status in LOST if action == "retry" else not ended
        if not possible:
            with pytest.raises(AppError):
                self.world.do(act())
        else:
            self.world.do(act())
            task.waits = False
            if action == "retry":
                self.back(task)
                task.retries = task.leases_lost = task.releases = 0
            else:
                task.status = "cancelled" if action == "cancel" else "failed"
        self.check()

    @rule(place=PLACES, others=st.sets(PLACES, max_size=2), replace=st.booleans())
    def depend(self, place: int, others: set[int], replace: bool) -> None:
        task, wanted = self.at(place), {self.order[one] for one in others}
        edges = [(before, one.id) for one in self.known.values() for before in one.depends_on]
        closes = dag.find_cycle(self.order, [*edges, *((one, task.id) for one in wanted)]) is not None

        async def act() -> None:
            async with self.world.db.uow() as tx:
                await self.world.queue.set_dependencies(tx, task.id, sorted(wanted), replace=replace)

        refused = self.world.refusal(act())
        if task.status != "pending":
            assert refused == "workflow.dependencies_fixed"
        else:
            assert refused == ("workflow.dependency_cycle" if closes else None)
        if refused is None:
            task.depends_on = wanted if replace else task.depends_on | wanted
        self.check()

    def check(self) -> None:
        """The rows say what the model says; versions only grow."""
        rows = self.world.do(self.world.fetch(_ROWS, self.organization))
        edges = self.world.do(self.world.fetch(_EDGES, self.organization))
        stored = {(row["task_id"], row["depends_on_id"]): row["satisfied"] for row in edges}
        expected = {
            (task.id, one): self.known[one].status == "completed"
            for task in self.known.values()
            for one in task.depends_on
        }
        assert stored == expected
        for row in rows:
            task = self.known[row["id"]]
            found = (row["status"], row["attempt"], row["retry_count"], row["leases_lost"], row["waits"])
            assert found == (task.status, task.attempt, task.retries, task.leases_lost, task.waits)
            assert row["sandbox_id"] == task.sandbox
            assert row["version"] >= task.version
            task.version = row["version"]
            if task.status == "pending":
                unmet = sum(self.known[one].status != "completed" for one in task.depends_on)
                assert row["unmet_dependencies"] == unmet
                assert bool(row["holds"] & Hold.DEPENDENCY_FAILED) == self.is_held(task)
                claimable = row["holds"] == 0 and row["unmet_dependencies"] == 0 and not row["waits"]
                assert claimable == self.is_ready(task)


@pytest.mark.timeout(300)
def test_any_sequence_leaves_the_queue_as_the_model_says(world: World) -> None:
    class Machine(QueueMachine):
        pass

    Machine.world = world
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples(40),
            # To make a failing example small takes minutes here: add Phase.shrink by hand.
            phases=[Phase.generate],
        ),
    )


def test_a_ring_that_is_closed_by_all_sides_at_once_stays_open(world: World) -> None:
    async def link(before: str, after: str) -> None:
        async with world.db.uow() as tx:
            await world.queue.set_dependencies(tx, after, [before])

    async def ring() -> list[BaseException | None]:
        ids = await world.tasks(new_id(), 4)
        pairs = list(zip(ids, [*ids[1:], ids[0]], strict=True))
        # Neighbours share a row that both lock; opposite sides do not.
        first = await asyncio.gather(*(link(*pair) for pair in pairs[::2]))
        return [*first, *await asyncio.gather(*(link(*pair) for pair in pairs[1::2]), return_exceptions=True)]

    for _ in range(10):
        refused = [error for error in world.do(ring()) if error is not None]
        assert [getattr(error, "code", error) for error in refused] == ["workflow.dependency_cycle"]


async def _set(world: World, task_id: str, *before: str) -> None:
    async with world.db.uow() as tx:
        await world.queue.set_dependencies(tx, task_id, before, replace=True)


async def _held(world: World, *ids: str) -> list[bool]:
    rows = await world.fetch("SELECT id, holds FROM tasks WHERE id = ANY($1)", list(ids))
    holds = {row["id"]: bool(row["holds"] & Hold.DEPENDENCY_FAILED) for row in rows}
    return [holds[one] for one in ids]


def test_what_is_below_a_task_is_held_and_freed_with_its_dependencies(world: World) -> None:
    async def story() -> None:
        lost, middle, last, _ = await world.tasks(new_id())
        async with world.db.uow() as tx:
            await world.queue.cancel_one(tx, lost, "no longer wanted")
        await _set(world, last, middle)
        await _set(world, middle, lost)
        assert await _held(world, middle, last) == [True, True]
        await _set(world, middle)
        assert await _held(world, middle, last) == [False, False], "a hold that stays keeps a task from ever running"

    world.do(story())


def test_a_task_that_is_tried_again_is_held_by_what_was_lost_meanwhile(world: World) -> None:
    async def story() -> None:
        lost, middle, *_ = await world.tasks(new_id())
        await _set(world, middle, lost)
        for task_id in (middle, lost):
            async with world.db.uow() as tx:
                await world.queue.cancel_one(tx, task_id, "no longer wanted")
        async with world.db.uow() as tx:
            await world.queue.retry(tx, middle)
        assert await _held(world, middle) == [True]
        async with world.db.uow() as tx:
            await world.queue.retry(tx, lost)
        assert await _held(world, middle) == [False]

    world.do(story())
