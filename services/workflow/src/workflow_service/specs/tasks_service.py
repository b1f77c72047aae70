"""Makes tasks of the queue from tasks that were added to a spec by hand."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from servicekit.db import Tx
from servicekit.ids import new_id
from workflow_service.coordination.service import CoordinationService
from workflow_service.engine.rules import IMPLEMENTATION
from workflow_service.engine.service import EngineService
from workflow_service.engine.tables import Ticket
from workflow_service.queue.draft_rules import TaskDraft
from workflow_service.queue.rules import Hold
from workflow_service.queue.service import QueueService
from workflow_service.specs import parts_store, rules
from workflow_service.specs.tables import Spec, SpecTask

BRIDGE = "spec_task_execution"


@dataclass(frozen=True, slots=True)
class Made:
    """What was made of the wanted tasks of a spec.

    `task_ids`: the tasks of the queue that are new; `waiting`: of the wanted ones, with all that they wait for, those
    that are not at work and not done; `chosen`: the wanted ones that have a task of the queue.
    """

    task_ids: list[str]
    waiting: list[str]
    wanted: int
    ticket_id: str | None
    chosen: frozenset[str] = frozenset()

    def chosen_among(self, ids: Collection[str]) -> int:
        """How many of these tasks of the queue were asked for."""
        return len(self.chosen.intersection(ids))


class SpecTaskMaker:
    """One queue task for one task of a spec, all of them in one ticket of the spec."""

    def __init__(self, queue: QueueService, engine: EngineService, coordination: CoordinationService) -> None:
        self._queue = queue
        self._engine = engine
        self._coordination = coordination

    async def make(self, tx: Tx, spec: Spec, chosen: Sequence[str] | None) -> Made:
        """Make tasks of the chosen ones (None: all), and of those that they wait for, that are pending and have none.

        A running execution takes the new ones in.
        """
        execution_id = await self._coordination.lock_open(tx, spec.id)
        rows = await parts_store.all_spec_tasks(tx, spec.id)
        wanted = [row for row in rows if chosen is None or row.id in chosen]
        needed = rules.with_dependencies([row.id for row in wanted], {row.id: row.dependencies for row in rows})
        taken = [row for row in rows if row.id in needed]
        fresh = [row for row in taken if row.task_id is None and row.status == "pending"]
        ticket_id = None
        if fresh:
            ticket = await self._bridge(tx, spec)
            ticket_id = ticket.id
            ids = {row.id: row.task_id or new_id() for row in rows if row.task_id is not None or row in fresh}
            await self._queue.create(tx, [_draft(spec, row, ticket, ids, execution_id) for row in fresh])
            for row in fresh:
                row.task_id = ids[row.id]
            await tx.session.flush()
        waiting = await self._coordination.left_to_do(tx, [row.task_id for row in taken if row.task_id is not None])
        return Made(
            [row.task_id for row in fresh if row.task_id is not None],
            waiting,
            len(wanted),
            ticket_id,
            frozenset(row.task_id for row in wanted if row.task_id is not None),
        )

    async def _bridge(self, tx: Tx, spec: Spec) -> Ticket:
        found = await parts_store.bridge_ticket(tx, spec.id, BRIDGE)
        if found is not None:
            return found
        row = {
            "organization_id": spec.organization_id,
            "project_id": spec.project_id,
            "spec_id": spec.id,
            "title": f"[Spec] {spec.title}"[:500],
            "description": spec.description,
            "phase_id": IMPLEMENTATION,
            "priority": "MEDIUM",
            "user_id": spec.user_id,
            "context": {"spec_id": spec.id, "spec_title": spec.title, "source": BRIDGE},
        }
        return (await self._engine.create(tx, [row]))[0]


def _draft(spec: Spec, row: SpecTask, ticket: Ticket, ids: dict[str, str], execution_id: str | None) -> TaskDraft:
    phase_id, task_type = rules.queue_phase(row.phase, row.title)
    return TaskDraft(
        id=ids[row.id],
        organization_id=spec.organization_id,
        project_id=spec.project_id,
        ticket_id=ticket.id,
        title=row.title,
        description=row.description,
        task_type=task_type,
        phase_id=phase_id,
        priority=row.priority.upper(),
        holds=0 if execution_id is not None else int(Hold.SPEC_NOT_EXECUTING),
        spec_id=spec.id,
        spec_task_id=row.id,
        execution_id=execution_id,
        target_branch=spec.target_branch,
        depends_on=tuple(ids[one] for one in row.dependencies if one in ids),
        context={"local_id": row.local_id or row.id},
    )
