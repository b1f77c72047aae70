"""The one way a ticket changes: every move, whoever asks for it, is decided, written and told here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from servicekit.auth import Principal, PrincipalType
from servicekit.db import Database, Tx
from servicekit.errors import AppError
from servicekit.ids import new_id
from workflow_service import events
from workflow_service.dag import rules as dag
from workflow_service.engine import rules, store
from workflow_service.engine.gates_service import GateKeeper
from workflow_service.engine.holds_service import HoldRepair
from workflow_service.engine.rules import Move, Refusal, TicketState
from workflow_service.engine.tables import Ticket
from workflow_service.errors import TICKET_NOT_FOUND, TRANSITION_REFUSED
from workflow_service.queue.draft_rules import TaskDraft
from workflow_service.queue.holds_service import TaskHolds
from workflow_service.queue.removal_service import TaskRemoval
from workflow_service.queue.rules import REMEDIATION, Hold
from workflow_service.queue.service import QueueService

FOLD_BATCH = 20_000
# A check for cycles reads at most this many dependencies.
MAX_EDGES = 200_000
COLLECTED_BY_WORKFLOW = "workflow"
_TICKET_DEFAULTS: Mapping[str, Any] = {
    "spec_id": None,
    "requirement_id": None,
    "description": None,
    "phase_id": rules.BACKLOG,
    "context": {},
    "approval_status": "approved",
    "approval_deadline_at": None,
    "requested_by_agent_id": None,
    "user_id": None,
    "content_hash": None,
}


class EngineService:
    """Tickets and their transitions. Joins the transactions of its callers."""

    def __init__(self, db: Database, queue: QueueService) -> None:
        self._db = db
        self._queue = queue
        self._removal = TaskRemoval(queue)
        self._holds = TaskHolds(queue)
        self.hold_repair = HoldRepair(db, queue)
        queue.held_by(self)
        self.gates = GateKeeper()

    async def own_ticket(self, tx: Tx, principal: Principal) -> str | None:
        """The one ticket that a sandbox works for, empty where it has none; None for whom no task limits."""
        if principal.type is not PrincipalType.SANDBOX:
            return None
        task = await self._queue.find(tx, str(principal.claims.get("task")))
        return "" if task is None else task.ticket_id

    async def require(
        self, tx: Tx, principal: Principal, permission: str, ticket_id: str, *, lock: bool = False
    ) -> Ticket:
        """The ticket, if the caller has `permission` there; a sandbox sees its own task's only.

        Raises 404 where it is unknown or foreign.
        """
        ticket = await store.get(tx, ticket_id)
        if ticket is None or await self.own_ticket(tx, principal) not in (None, ticket_id):
            raise TICKET_NOT_FOUND()
        principal.require(permission, ticket.organization_id, missing=TICKET_NOT_FOUND)
        if lock:
            ticket = await self.lock(tx, ticket_id)
            if ticket is None:
                raise TICKET_NOT_FOUND()
        return ticket

    async def lock(self, tx: Tx, ticket_id: str) -> Ticket | None:
        """The ticket, locked after its live tasks: whoever ends a task moves its ticket after it."""
        await self._queue.lock_ticket(tx, ticket_id)
        return await store.get(tx, ticket_id, lock=True)

    async def find(self, tx: Tx, ticket_id: str) -> Ticket | None:
        """One ticket, for rooms that check access by another row."""
        return await store.get(tx, ticket_id)

    async def clock(self, tx: Tx) -> datetime:
        """The database's clock."""
        return await store.now(tx)

    async def create(self, tx: Tx, rows: Sequence[Mapping[str, Any]]) -> list[Ticket]:
        """Make tickets. Each row: organization_id, project_id, title, priority and what else is not the default.

        The status is that of the phase.
        """
        full = []
        for row in rows:
            values = {**_TICKET_DEFAULTS, "id": new_id(), **row}
            values["status"] = rules.status_of(values["phase_id"])
            full.append(values)
        tickets = await store.add_all(tx, full)
        for ticket in tickets:
            events.ticket_created(tx, ticket)
        return tickets

    async def laid_on_tasks(self, tx: Tx, ticket_ids: Sequence[str]) -> Mapping[str, int]:
        """The holds that tickets lay on their tasks; they do not change until this transaction has ended.

        Raises 404 where a ticket does not exist.
        """
        tickets = await store.share(tx, ticket_ids)
        if len(tickets) < len(ticket_ids):
            raise TICKET_NOT_FOUND()
        waiting = await store.waiting(tx, ticket_ids)
        return {
            ticket.id: int(
                (Hold.TICKET_NOT_APPROVED if ticket.approval_status != "approved" else 0)
                | (Hold.TICKET_BLOCKED if ticket.is_blocked else 0)
                | (Hold.SPEC_ARCHIVED if ticket.hidden else 0)
                | (Hold.TICKET_WAITS if ticket.id in waiting else 0)
            )
            for ticket in tickets
        }

    async def enqueue(
        self,
        tx: Tx,
        ticket: Ticket,
        task_type: str,
        phase_id: str,
        config: Mapping[str, Any],
        title: str | None = None,
        *,
        fresh: bool = False,
    ) -> str:
        """Queue one task of a ticket; returns its id.

        `fresh`: the ticket was made in this transaction, approved and waiting for no other, in a project that this
        transaction keeps from changing, so that nothing about them must be read.
        """
        draft = TaskDraft(
            id=new_id(),
            organization_id=ticket.organization_id,
            project_id=ticket.project_id,
            ticket_id=ticket.id,
            title=title or f"{task_type}: {ticket.title[:50]}",
            description=ticket.description,
            task_type=task_type,
            phase_id=phase_id,
            priority=ticket.priority,
            execution_config=dict(config),
        )
        await self._queue.create(tx, [draft], now=ticket.created_at if fresh else None, settled=fresh)
        return draft.id

    async def edit(self, tx: Tx, ticket: Ticket, changes: Mapping[str, Any]) -> None:
        """Change what is no move: title, description, priority, context, spec."""
        real = {name: value for name, value in changes.items() if getattr(ticket, name) != value}
        if not real:
            return
        for name, value in real.items():
            setattr(ticket, name, value)
        await self._touch(tx, ticket)
        events.ticket_updated(tx, ticket, {name: value for name, value in real.items() if name != "context"})

    async def hide(self, tx: Tx, spec_id: str, hidden: bool) -> None:
        """Leave the tickets of a spec with their tasks out of lists, boards, counts and claims, or the reverse."""
        ids = await store.ids_of_spec(tx, spec_id)
        await self._holds.hide(tx, ids, hidden)
        await store.hide_of_spec(tx, spec_id, hidden)
        # Tasks that were being made until the tickets were locked.
        await self._holds.hide(tx, ids, hidden)

    async def link(self, tx: Tx, ticket: Ticket, spec_id: str | None, *, archived: bool) -> None:
        """Have a locked ticket belong to a spec, or to none, and share its fate. `archived`: that of the spec."""
        changed = ticket.hidden != archived
        ticket.hidden = archived
        await self.edit(tx, ticket, {"spec_id": spec_id})
        if changed:
            await self._holds.hide(tx, [ticket.id], archived)

    async def decide_approval(
        self, tx: Tx, ticket: Ticket, status: str, by: str, reason: str | None, *, delete: bool
    ) -> None:
        """Approve, reject or time out a locked ticket that waits for it; its work begins, or it goes if so set."""
        ticket.approval_status = status
        ticket.rejection_reason = reason
        ticket.approval_deadline_at = None
        await self._touch(tx, ticket)
        events.ticket_approval_changed(tx, ticket, by, deleted=delete)
        await self._queue.hold_ticket(tx, ticket.id, Hold.TICKET_NOT_APPROVED, status != "approved")
        if delete:
            waiting = await store.blocked_by(tx, ticket.id)
            await self._removal.of_ticket(tx, ticket.id, f"ticket_{status}")
            await store.delete(tx, ticket)
            await self._weigh_waiting(tx, waiting)
        elif status != "approved":
            await self._let_waiting_go(tx, ticket)

    async def cycle_with(self, tx: Tx, organization_id: str, pairs: Sequence[tuple[str, str]]) -> list[str] | None:
        """The cycle that (ticket, blocked by) would close, each ticket before the one that waits for it; None if none.

        No other transaction adds dependencies in this organization until this one has ended.
        """
        await store.lock_dependencies(tx, organization_id)
        edges = await store.upstream_edges(tx, sorted({blocker for _, blocker in pairs}), MAX_EDGES)
        edges += [(blocker, ticket) for ticket, blocker in pairs]
        return dag.find_cycle(list(dict.fromkeys(node for edge in edges for node in edge)), edges)

    async def wait_for(self, tx: Tx, pairs: Sequence[tuple[str, str]]) -> None:
        """Record (ticket, blocked by), which close no cycle; the tickets' live tasks wait from now on."""
        for ticket_id in sorted({pair[0] for pair in pairs}):
            await self._queue.lock_ticket(tx, ticket_id)
        # None of them is done or deleted before it is known that somebody waits for it.
        await self.laid_on_tasks(tx, sorted({pair[1] for pair in pairs}))
        await store.add_dependencies(tx, pairs)
        await self._weigh_waiting(tx, sorted({pair[0] for pair in pairs}))

    # Moves

    async def move_to_status(
        self, tx: Tx, ticket: Ticket, to_status: str, by: str, reason: str, *, force: bool = False
    ) -> Move:
        """Move a locked ticket to a status. Raises 400 naming what is allowed."""
        decision = rules.decide_status(_state(ticket), to_status, force=force)
        if isinstance(decision, Refusal):
            raise refused(decision)
        await self._apply(tx, ticket, decision, by, reason)
        return decision

    async def move_to_phase(
        self,
        tx: Tx,
        ticket: Ticket,
        to_phase: str,
        by: str,
        reason: str,
        *,
        force: bool = False,
        columns: tuple[str, str] = ("", ""),
    ) -> Move | Refusal:
        """Move a locked ticket to a phase; evidence is collected before the gate is asked. A refusal is returned."""
        gate = rules.OPEN_GATE
        if not force and rules.PHASES[ticket.phase_id].required_artifacts:
            gate = await self.gates.evaluate(tx, ticket, ticket.phase_id)
        decision = rules.decide_phase(_state(ticket), to_phase, gate=gate, force=force)
        if isinstance(decision, Move):
            await self._apply(tx, ticket, decision, by, reason, columns)
        return decision

    async def move_on_board(
        self, tx: Tx, ticket: Ticket, to_phase: str, by: str, force: bool, columns: tuple[str, str]
    ) -> Move | Refusal:
        """Move a locked ticket to a column's phase. The board offers a move that either vocabulary allows."""
        decision = await self.move_to_phase(
            tx, ticket, to_phase, by, "moved on the board", force=force, columns=columns
        )
        # A move that the registry knows was refused for a reason, such as its gate, which the other vocabulary has not.
        registered = to_phase in rules.PHASES[ticket.phase_id].allowed_transitions
        if isinstance(decision, Refusal) and not registered:
            by_status = rules.decide_status(_state(ticket), rules.status_of(to_phase))
            if isinstance(by_status, Move) and by_status.to_phase == to_phase:
                await self._apply(tx, ticket, by_status, by, "moved on the board", columns)
                return by_status
        return decision

    async def move_automatically(self, tx: Tx, ticket: Ticket, move: rules.AutoMove, reason: str) -> None:
        """What the workflow does by itself when work starts, or when all of it has ended well."""
        target = rules.automatic_phase(_state(ticket), move)
        if target is not None:
            await self.move_to_phase(tx, ticket, target, COLLECTED_BY_WORKFLOW, reason, force=True)

    async def work_started(self, tx: Tx, ticket_id: str) -> None:
        """A task of this ticket runs: a ticket that has not come so far moves to implementation."""
        ticket = await store.get(tx, ticket_id, lock=True)
        if ticket is not None:
            await self.move_automatically(tx, ticket, "start", "work on a task started")

    async def work_ended(self, tx: Tx, ticket_id: str, phase_id: str) -> None:
        """A task of this ticket is completed and merged. When all are, the ticket goes on.

        After work of the implementation or a later phase it is done; after work of an earlier phase it takes the next
        step of the chain if the gate lets it.
        """
        total, still_open = await store.task_counts(tx, ticket_id)
        if total == 0 or still_open:
            return
        ticket = await store.get(tx, ticket_id, lock=True)
        if ticket is None:
            return
        known = rules.known_phase(phase_id) or rules.IMPLEMENTATION
        if rules.PHASES[known].sequence_order >= rules.PHASES[rules.IMPLEMENTATION].sequence_order:
            await self.move_automatically(tx, ticket, "finish", "all tasks are completed")
        else:
            await self.progress(tx, ticket, COLLECTED_BY_WORKFLOW)

    async def work_dropped(self, tx: Tx, ticket_id: str) -> None:
        """A task was cancelled: the ticket goes on if all of its other tasks have ended well."""
        done = [rules.known_phase(one) or rules.IMPLEMENTATION for one in await store.completed_phases(tx, ticket_id)]
        if done:
            await self.work_ended(tx, ticket_id, max(done, key=lambda one: rules.PHASES[one].sequence_order))

    async def progress(self, tx: Tx, ticket: Ticket, by: str) -> Move | Refusal:
        """Move a locked ticket one step along the chain of statuses, if the gate of its phase is met."""
        if ticket.is_blocked or ticket.status == "done":
            return Refusal(("the ticket is blocked or done",))
        following = rules.next_status(ticket.status)
        gate = await self.gates.evaluate(tx, ticket, ticket.phase_id)
        if following is None or not gate.met:
            return Refusal(gate.reasons)
        return await self.move_to_status(tx, ticket, following, by, "gate met")

    async def _apply(
        self, tx: Tx, ticket: Ticket, move: Move, by: str, reason: str, columns: tuple[str, str] = ("", "")
    ) -> None:
        was_blocked, previous_blocker = ticket.is_blocked, ticket.blocked_reason or ""
        now = await store.now(tx)
        ticket.previous_phase_id = move.from_phase
        ticket.phase_id = move.to_phase
        if move.to_status != ticket.status:
            ticket.status_entered_at = now
        ticket.status = move.to_status
        if move.blocked:
            ticket.is_blocked, ticket.blocked_reason = True, ticket.blocked_reason or "waiting_on_clarification"
            ticket.blocked_at = ticket.blocked_at or now
        elif move.clears_overlay:
            ticket.is_blocked, ticket.blocked_reason, ticket.blocked_at = False, None, None
        await self._touch(tx, ticket)
        await store.add_history(
            tx,
            [
                {
                    "id": new_id(),
                    "ticket_id": ticket.id,
                    "from_phase": move.from_phase,
                    "to_phase": move.to_phase,
                    "from_status": move.from_status,
                    "to_status": move.to_status,
                    "transition_reason": reason or None,
                    "transitioned_by": by,
                }
            ],
        )
        events.ticket_transitioned(tx, ticket, move, by, reason, *columns)
        if ticket.is_blocked != was_blocked:
            if ticket.is_blocked:
                events.ticket_blocked(tx, ticket, "", by)
            else:
                events.ticket_unblocked(tx, ticket, previous_blocker, by)
            await self._queue.hold_ticket(tx, ticket.id, Hold.TICKET_BLOCKED, ticket.is_blocked)
        if (move.to_status == "done") != (move.from_status == "done"):
            await self._let_waiting_go(tx, ticket)

    async def _let_waiting_go(self, tx: Tx, ticket: Ticket) -> None:
        """This ticket is done, refused, or open again: work of tickets that wait for it may begin, or must wait."""
        await tx.session.flush()
        await self._weigh_waiting(tx, await store.blocked_by(tx, ticket.id))

    async def _weigh_waiting(self, tx: Tx, waiting: Sequence[str]) -> None:
        """Hold the work of each of these tickets exactly if it waits for another one."""
        still = await store.waiting(tx, waiting)
        for ticket_id in waiting:
            await self._queue.hold_ticket(tx, ticket_id, Hold.TICKET_WAITS, ticket_id in still)

    async def block(self, tx: Tx, ticket: Ticket, blocker_type: str, remediation: str, by: str) -> bool:
        """Set the overlay on a locked ticket and queue a remediation task; False when it is blocked or done."""
        if not rules.can_block(_state(ticket)):
            return False
        ticket.is_blocked = True
        ticket.blocked_reason = blocker_type
        ticket.blocked_at = await store.now(tx)
        await self._touch(tx, ticket)
        events.ticket_blocked(tx, ticket, remediation, by)
        await self._queue.hold_ticket(tx, ticket.id, Hold.TICKET_BLOCKED, True)
        draft = TaskDraft(
            id=new_id(),
            organization_id=ticket.organization_id,
            project_id=ticket.project_id,
            ticket_id=ticket.id,
            title=f"Remediate: {ticket.title[:50]}",
            description=remediation or f"Remove what blocks the ticket: {blocker_type}.",
            task_type=REMEDIATION,
            phase_id=ticket.phase_id,
            priority=ticket.priority,
            # The remedy itself must be able to run while the ticket is blocked.
            exempt=int(Hold.TICKET_BLOCKED),
        )
        await self._queue.create(tx, [draft])
        return True

    async def unblock(self, tx: Tx, ticket: Ticket, by: str) -> bool:
        """Clear the overlay of a locked ticket; it goes back to where it was. False when it was not blocked."""
        if not ticket.is_blocked:
            return False
        if ticket.phase_id == rules.BLOCKED:
            back = ticket.previous_phase_id or rules.BACKLOG
            await self.move_to_phase(tx, ticket, back, by, "unblocked", force=True)
            return True
        previous, ticket.is_blocked, ticket.blocked_reason, ticket.blocked_at = ticket.blocked_reason, False, None, None
        await self._touch(tx, ticket)
        events.ticket_unblocked(tx, ticket, previous or "", by)
        await self._queue.hold_ticket(tx, ticket.id, Hold.TICKET_BLOCKED, False)
        return True

    async def would_move(self, tx: Tx, ticket: Ticket, to_phase: str) -> Move | Refusal:
        """What the engine would decide now, by the evidence that was collected; nothing is changed."""
        gate = await self.gates.evaluate(tx, ticket, ticket.phase_id, collect=False)
        return rules.decide_phase(_state(ticket), to_phase, gate=gate)

    async def has_live_task(self, tx: Tx, ticket_id: str, phase_id: str) -> bool:
        """Whether a phase of a ticket has work that has not ended."""
        return await store.live_tasks(tx, ticket_id, phase_id) > 0

    async def fold_counts(self) -> int:
        """Fold the counts' deltas, so that reading a count reads few rows."""
        async with self._db.uow() as tx:
            return await store.fold_counts(tx, FOLD_BATCH)

    async def _touch(self, tx: Tx, ticket: Ticket) -> None:
        ticket.version += 1
        ticket.updated_at = await store.now(tx)
        await tx.session.flush()


def _state(ticket: Ticket) -> TicketState:
    return TicketState(ticket.phase_id, ticket.status, ticket.is_blocked, ticket.previous_phase_id)


def refused(decision: Refusal) -> AppError:
    """The 400 of a move that is not legal."""
    return TRANSITION_REFUSED("; ".join(decision.reasons) + ".")
