"""The DAG of tasks on a real database against a naive model: any sequence of edges, ends, retries and merges.

The model keeps the edges and how each task stands, and works out anew what is unmet and what is held. What is refused,
a cycle above all, must leave every row and the outbox as they were.
"""

from __future__ import annotations

import itertools
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from servicekit.ids import new_id
from servicekit.testing.profiles import examples
from workflow_service.queue.claims_service import AttemptRef
from workflow_service.queue.rules import Hold

from .machine_world import World, member

TASKS = 6
PLACES = st.integers(0, TASKS - 1)
ENDED = ("completed", "failed", "cancelled")
_ROWS = """
SELECT id, status, merge_state, holds, unmet_dependencies, version,
    (SELECT count(*) FROM outbox WHERE organization_id = $1) AS told
FROM tasks WHERE organization_id = $1 ORDER BY id
"""
_EDGES = """
SELECT d.task_id, d.depends_on_id, d.satisfied FROM task_dependencies d
JOIN tasks t ON t.id = d.task_id WHERE t.organization_id = $1 ORDER BY 1, 2
"""


@dataclass
class Node:
    """A task in the model."""

    status: str = "pending"
    merge: str = "none"
    above: set[str] = field(default_factory=set)

    @property
    def lets_go(self) -> bool:
        return self.status == "completed" and self.merge in ("none", "merged")

    @property
    def is_lost(self) -> bool:
        return self.status in ("failed", "cancelled") or self.merge == "failed"


class DependencyMachine(RuleBasedStateMachine):
    """Six tasks of one organization; every second one leaves commits that must be merged."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.organization = new_id()
        self.owner, self.stranger = member(self.organization), member(new_id())
        self.order = self.world.do(self.world.tasks(self.organization, TASKS))
        self.merging = self.order[::2]
        self.nodes = {task_id: Node() for task_id in self.order}
        self.seen = self.world.do(self.state())

    # The model

    def ancestors(self, task_id: str) -> set[str]:
        """Everything that the task waits for or has waited for, itself included."""
        found, left = set(), [task_id]
        while left:
            one = left.pop()
            if one not in found:
                found.add(one)
                left += self.nodes[one].above
        return found

    def unmet(self, task_id: str) -> set[str]:
        return {one for one in self.nodes[task_id].above if not self.nodes[one].lets_go}

    def is_held(self, task_id: str) -> bool:
        return any(self.nodes[one].is_lost or self.is_held(one) for one in self.unmet(task_id))

    def ready(self) -> set[str]:
        return {one for one, node in self.nodes.items() if node.status == "pending" and not self.unmet(one)}

    # The rows

    async def state(self) -> tuple[list[dict[str, Any]], list[tuple[str, str, bool]]]:
        rows = await self.world.fetch(_ROWS, self.organization)
        edges = await self.world.fetch(_EDGES, self.organization)
        return [dict(row) for row in rows], [tuple(row) for row in edges]

    def attempt(self, work: Coroutine[Any, Any, Any], refusal: str | None) -> bool:
        """Whether it was done; a refusal must be the expected one and leave everything as it was."""
        assert self.world.refusal(work) == refusal
        if refusal is not None:
            assert self.world.do(self.state()) == self.seen, "what is refused changes nothing"
        return refusal is None

    def check(self) -> None:
        """The rows say what the model says, and versions only grow."""
        rows, edges = self.world.do(self.state())
        expected = [(one, before) for one, node in self.nodes.items() for before in node.above]
        assert edges == sorted((one, before, self.nodes[before].lets_go) for one, before in expected)
        for row, old in zip(rows, self.seen[0], strict=True):
            node = self.nodes[row["id"]]
            assert (row["status"], row["merge_state"]) == (node.status, node.merge)
            assert row["unmet_dependencies"] == len(self.unmet(row["id"]))
            if node.status == "pending":
                assert row["holds"] == (Hold.DEPENDENCY_FAILED if self.is_held(row["id"]) else 0)
            changed = any(row[name] != old[name] for name in row if name not in ("version", "told"))
            assert row["version"] > old["version"] if changed else row["version"] >= old["version"]
        self.seen = rows, edges

    # Edges

    @initialize(edges=st.sets(st.sampled_from(list(itertools.combinations(range(TASKS), 2))), min_size=4, max_size=9))
    def planned(self, edges: set[tuple[int, int]]) -> None:
        for place in range(TASKS):
            before = {one for one, after in edges if after == place}
            if before:
                self.depend(place=place, others=before, replace=True)

    @rule(place=PLACES, others=st.sets(PLACES, min_size=1, max_size=3), replace=st.booleans())
    def depend(self, place: int, others: set[int], replace: bool) -> None:
        task_id, wanted = self.order[place], {self.order[one] for one in others}
        node = self.nodes[task_id]
        new = wanted - node.above
        closes = any(task_id in self.ancestors(one) for one in new)
        asked = self.world.do(self.world.by_hand.check_circular(self.owner, task_id, sorted(wanted)))
        assert asked.has_circular_dependency == any(task_id in self.ancestors(one) for one in wanted)
        work = self.world.by_hand.set_dependencies(self.owner, task_id, sorted(wanted), replace=replace)
        fixed = "workflow.dependencies_fixed" if node.status != "pending" else None
        if self.attempt(work, fixed or ("workflow.dependency_cycle" if closes else None)):
            node.above = wanted if replace else node.above | wanted
        self.check()

    @rule(place=PLACES, other=PLACES)
    def part(self, place: int, other: int) -> None:
        node, gone = self.nodes[self.order[place]], self.order[other]
        refusal = None
        if not node.above:
            refusal = "workflow.no_dependencies"
        elif gone not in node.above:
            refusal = "workflow.dependency_not_found"
        elif node.status != "pending":
            refusal = "workflow.dependencies_fixed"
        if self.attempt(self.world.by_hand.remove_dependency(self.owner, self.order[place], gone), refusal):
            node.above -= {gone}
        self.check()

    @rule(place=PLACES, other=PLACES, foreign=st.booleans())
    def what_is_not_there(self, place: int, other: int, foreign: bool) -> None:
        task_id, by_hand = self.order[place], self.world.by_hand
        if foreign:
            work = by_hand.set_dependencies(self.stranger, task_id, [self.order[other]], replace=True)
            self.attempt(work, "workflow.task_not_found")
        else:
            pending = self.nodes[task_id].status == "pending"
            refusal = "workflow.dependency_not_found" if pending else "workflow.dependencies_fixed"
            work = by_hand.set_dependencies(self.owner, task_id, [self.order[other], new_id()], replace=False)
            self.attempt(work, refusal)

    # Ends

    @rule(ends=st.lists(st.sampled_from(["complete", "fail", "release"]), min_size=TASKS, max_size=TASKS))
    def work(self, ends: list[str]) -> None:
        """Runners take all that is ready, and every attempt ends."""
        expected = self.ready()
        sandboxes = [new_id("sandbox-") for _ in range(TASKS)]
        claims = self.world.claims
        found = self.world.do(
            claims.claim(organization_ids=[self.organization], agent_id="a-1", maximum=TASKS, sandbox_ids=sandboxes)
        )
        assert {one.id for one in found} == expected
        for claimed in found:
            node, end = self.nodes[claimed.id], ends[self.order.index(claimed.id)]
            ref = AttemptRef(claimed.id, claimed.attempt, claimed.sandbox_id)
            if end == "complete":
                self.world.do(claims.complete(ref, {}, "a-branch", "f" * 40 if claimed.id in self.merging else ""))
                node.status = "completed"
                node.merge = "pending" if claimed.id in self.merging else "none"
            elif end == "fail":
                self.world.do(claims.fail(ref, "boom", {}, True))
                node.status = "failed"
            else:
                self.world.do(claims.release([ref], ""))
                # How often a task may be given back before it has to wait is the other machine's matter.
                self.world.do(self.world.fetch("UPDATE tasks SET releases = 0 WHERE id = $1", claimed.id))
        self.check()

    @rule(place=PLACES, action=st.sampled_from(["cancel", "fail", "retry"]))
    def decide(self, place: int, action: str) -> None:
        task_id, by_hand = self.order[place], self.world.by_hand
        node, refusal = self.nodes[task_id], None
        if action == "cancel":
            refusal = "workflow.task_not_cancellable" if node.status in ENDED else None
            done = self.attempt(by_hand.cancel(self.owner, task_id, "no longer wanted"), refusal)
        elif action == "fail":
            refusal = "workflow.task_ended" if node.status in ENDED else None
            done = self.attempt(by_hand.fail(self.owner, task_id, "by hand"), refusal)
        else:
            refusal = None if node.is_lost else "workflow.task_not_retryable"
            done = self.attempt(by_hand.retry(self.owner, task_id), refusal)
        if done and node.merge == "failed":
            node.merge = "pending"
        elif done:
            node.status = {"cancel": "cancelled", "fail": "failed", "retry": "pending"}[action]
        self.check()

    @precondition(lambda self: any(node.is_lost for node in self.nodes.values()))
    @rule(data=st.data())
    def retry_what_is_lost(self, data: st.DataObject) -> None:
        lost = [place for place, one in enumerate(self.order) if self.nodes[one].is_lost]
        self.decide(place=data.draw(st.sampled_from(lost)), action="retry")

    @rule(places=st.sets(PLACES, min_size=2, max_size=3))
    def cancel_several(self, places: set[int]) -> None:
        for place in sorted(places):
            self.decide(place=place, action="cancel")

    @precondition(lambda self: any(node.merge == "pending" for node in self.nodes.values()))
    @rule(data=st.data(), lost=st.booleans())
    def merge(self, data: st.DataObject, lost: bool) -> None:
        waiting = [place for place, one in enumerate(self.order) if self.nodes[one].merge == "pending"]
        task_id = self.order[data.draw(st.sampled_from(waiting))]

        async def act() -> None:
            async with self.world.db.uow() as tx:
                task = await self.world.merges.lock(tx, task_id)
                assert task is not None
                if lost:
                    await self.world.merges.lost(tx, task, "the branch is gone")
                else:
                    await self.world.merges.merged(tx, task)

        self.world.do(act())
        self.nodes[task_id].merge = "failed" if lost else "merged"
        self.check()


@pytest.mark.timeout(300)
def test_any_sequence_leaves_the_dependencies_as_the_model_says(world: World) -> None:
    class Machine(DependencyMachine):
        pass

    Machine.world = world
    run_state_machine_as_test(
        Machine,
        # To make a failing example small takes minutes here: add Phase.shrink by hand.
        settings=settings(max_examples=examples(25), phases=[Phase.generate]),
    )
