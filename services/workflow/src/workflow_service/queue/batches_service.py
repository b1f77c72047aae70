"""Claims that arrive together are answered together: one statement and one commit hand out tasks to many claimers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Task = TypeVar("Task")

# Tasks that one statement hands out at most: its locks and its commit stay short.
MAX_BATCH = 200


@dataclass(frozen=True, slots=True)
class ClaimKind:
    """Claims of one kind may share a statement."""

    organization_ids: tuple[str, ...]
    project_ids: tuple[str, ...]
    capabilities: tuple[str, ...]
    lease_s: int


@dataclass(frozen=True, slots=True)
class Slot:
    """Room for one task: the sandbox to come and the agent it belongs to."""

    sandbox_id: str
    agent_id: str


@dataclass(slots=True)
class _Waiting(Generic[Task]):
    slots: Sequence[Slot]
    answer: asyncio.Future[list[Task]]
    taken: list[Task] = field(default_factory=list)


Run = Callable[[ClaimKind, Sequence[Slot]], Awaitable[Sequence[Task]]]
GiveBack = Callable[[Sequence[Task]], Awaitable[None]]


class ClaimBatches(Generic[Task]):
    """`run(kind, slots)` fills slots in their order; `give_back(tasks)` takes what nobody waits for any more."""

    def __init__(self, run: Run[Task], give_back: GiveBack[Task]) -> None:
        self._run = run
        self._give_back = give_back
        self._waiting: dict[ClaimKind, deque[_Waiting[Task]]] = {}
        self._workers: set[asyncio.Task[None]] = set()

    async def claim(self, kind: ClaimKind, slots: Sequence[Slot]) -> list[Task]:
        """Tasks for these slots, fewer when there are fewer."""
        waiting = _Waiting[Task](slots, asyncio.get_running_loop().create_future())
        queue = self._waiting.get(kind)
        if queue is not None:
            queue.append(waiting)
        else:
            self._waiting[kind] = deque([waiting])
            worker = asyncio.create_task(self._work(kind), name="claim-batch")
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        return await waiting.answer

    async def _work(self, kind: ClaimKind) -> None:
        queue = self._waiting[kind]
        while queue:
            batch: list[_Waiting[Task]] = []
            room = MAX_BATCH
            while queue and (not batch or len(queue[0].slots) <= room):
                room -= len(queue[0].slots)
                batch.append(queue.popleft())
            await self._answer(kind, [one for one in batch if not one.answer.done()])
        del self._waiting[kind]

    async def _answer(self, kind: ClaimKind, batch: Sequence[_Waiting[Task]]) -> None:
        # The first slot of everybody comes before the second of anybody.
        deepest = max((len(one.slots) for one in batch), default=0)
        order = [(one, one.slots[depth]) for depth in range(deepest) for one in batch if depth < len(one.slots)]
        if not order:
            return
        try:
            tasks = await self._run(kind, [slot for _, slot in order])
        except Exception as error:
            for one in batch:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        for task, (one, _) in zip(tasks, order, strict=False):
            one.taken.append(task)
        unwanted: list[Task] = []
        for one in batch:
            if one.answer.done():
                unwanted += one.taken
            else:
                one.answer.set_result(one.taken)
        if unwanted:
            await self._give_back(unwanted)
