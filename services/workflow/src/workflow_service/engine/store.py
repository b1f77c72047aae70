"""SQL of tickets: rows, history, gates, counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from servicekit.db import Tx
from servicekit.db.inserts import insert_new
from servicekit.ids import new_id
from workflow_service.engine.tables import (
    GateArtifact,
    GateResult,
    PhaseHistory,
    Ticket,
    TicketCount,
    TicketCountDelta,
    TicketDependency,
)
from workflow_service.locks.rules import LockClass, advisory_lock
from workflow_service.queue.rules import Hold
from workflow_service.queue.tables import Task

_LOCK_DEPENDENCIES = text(f"SELECT {advisory_lock(LockClass.TICKET_DEPENDENCIES, ':id')}")
_FOLD = """
WITH moved AS (
    DELETE FROM ticket_count_deltas WHERE seq IN (SELECT seq FROM ticket_count_deltas ORDER BY seq LIMIT $1)
    RETURNING organization_id, project_id, phase_id, status, priority, tickets
), summed AS (
    SELECT organization_id, project_id, phase_id, status, priority, sum(tickets)::bigint AS tickets FROM moved
    GROUP BY organization_id, project_id, phase_id, status, priority
)
INSERT INTO ticket_counts AS c (organization_id, project_id, phase_id, status, priority, tickets)
SELECT * FROM summed ORDER BY project_id, phase_id, status, priority
ON CONFLICT (project_id, phase_id, status, priority) DO UPDATE SET tickets = c.tickets + excluded.tickets
"""

# Made once: nearly every request about tickets reads one.
_ONE = select(Ticket).where(Ticket.id == bindparam("ticket"))
_LOCKED = _ONE.with_for_update(key_share=True).execution_options(populate_existing=True)


async def now(tx: Tx) -> datetime:
    """The database's clock."""
    value: datetime = (await tx.session.scalars(select(func.clock_timestamp()))).one()
    return value


async def get(tx: Tx, ticket_id: str, *, lock: bool = False) -> Ticket | None:
    """One ticket, locked on request."""
    return (await tx.session.scalars(_LOCKED if lock else _ONE, {"ticket": ticket_id})).one_or_none()


async def get_many(tx: Tx, ids: Sequence[str], *, lock: bool = False) -> list[Ticket]:
    """Those of these tickets that exist, in the order of their ids."""
    statement = select(Ticket).where(Ticket.id.in_(ids)).order_by(Ticket.id)
    if lock:
        statement = statement.with_for_update(key_share=True).execution_options(populate_existing=True)
    return list((await tx.session.scalars(statement)).all())


async def share(tx: Tx, ids: Sequence[str]) -> list[Ticket]:
    """Those of these tickets that exist, as they are and stay until this transaction has ended."""
    statement = select(Ticket).where(Ticket.id.in_(ids)).order_by(Ticket.id).with_for_update(read=True)
    return list((await tx.session.scalars(statement.execution_options(populate_existing=True))).all())


async def add_all(tx: Tx, rows: Sequence[dict[str, Any]]) -> list[Ticket]:
    """Insert tickets with all the same columns; returns them in their order."""
    return await insert_new(tx, Ticket, rows)


async def add_dependencies(tx: Tx, pairs: Sequence[tuple[str, str]]) -> None:
    """Insert (ticket, blocked by); known pairs stay."""
    if pairs:
        await tx.session.execute(
            upsert(TicketDependency).on_conflict_do_nothing(),
            [{"ticket_id": ticket, "blocked_by_id": blocker} for ticket, blocker in pairs],
        )


async def lock_dependencies(tx: Tx, organization_id: str) -> None:
    """Lets one transaction at a time add dependencies between tickets of an organization: two could close a cycle."""
    await tx.session.execute(_LOCK_DEPENDENCIES, {"id": organization_id})


async def upstream_edges(tx: Tx, start: Sequence[str], limit: int) -> list[tuple[str, str]]:
    """(blocked by, ticket) of everything that `start` waits for, directly or not; at most `limit`."""
    connection = await tx.connection()
    rows = await connection.fetch(
        """
        WITH RECURSIVE up AS (
            SELECT d.ticket_id, d.blocked_by_id FROM ticket_dependencies d WHERE d.ticket_id = ANY($1)
            UNION
            SELECT d.ticket_id, d.blocked_by_id FROM ticket_dependencies d JOIN up ON d.ticket_id = up.blocked_by_id
        )
        SELECT blocked_by_id, ticket_id FROM up LIMIT $2
        """,
        list(start),
        limit,
    )
    return [(row["blocked_by_id"], row["ticket_id"]) for row in rows]


async def waiting(tx: Tx, ticket_ids: Sequence[str]) -> set[str]:
    """Those of these tickets that wait for another: one that is not done, and was not refused for good."""
    rows = await tx.session.scalars(
        select(TicketDependency.ticket_id)
        .join(Ticket, Ticket.id == TicketDependency.blocked_by_id)
        .where(
            TicketDependency.ticket_id.in_(ticket_ids),
            Ticket.status != "done",
            Ticket.approval_status.notin_(("rejected", "timed_out")),
        )
    )
    return set(rows.all())


async def blocked_by(tx: Tx, ticket_id: str) -> list[str]:
    """Tickets that wait for this one."""
    rows = await tx.session.scalars(
        select(TicketDependency.ticket_id)
        .where(TicketDependency.blocked_by_id == ticket_id)
        .order_by(TicketDependency.ticket_id)
    )
    return list(rows.all())


async def delete(tx: Tx, ticket: Ticket) -> None:
    """Delete a ticket; its tasks, history and evidence go with it."""
    await tx.session.delete(ticket)
    await tx.session.flush()


async def add_history(tx: Tx, rows: Sequence[dict[str, Any]]) -> None:
    """Insert moves."""
    if rows:
        await tx.session.execute(insert(PhaseHistory), list(rows))


async def artifacts(tx: Tx, ticket_id: str, phase_id: str) -> list[GateArtifact]:
    """Evidence of a phase, oldest first."""
    rows = await tx.session.scalars(
        select(GateArtifact)
        .where(GateArtifact.ticket_id == ticket_id, GateArtifact.phase_id == phase_id)
        .order_by(GateArtifact.collected_at, GateArtifact.id)
    )
    return list(rows.all())


async def add_artifacts(tx: Tx, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert evidence; one of a type and path that is there already stays. Returns how many are new."""
    added = 0
    for row in rows:
        result = await tx.session.scalar(
            upsert(GateArtifact).values({"id": new_id(), **row}).on_conflict_do_nothing().returning(GateArtifact.id)
        )
        added += result is not None
    return added


async def replace_artifact(tx: Tx, row: dict[str, Any]) -> GateArtifact:
    """Insert evidence, or replace the one of the same type and path."""
    statement = upsert(GateArtifact).values(row)
    statement = statement.on_conflict_do_update(
        constraint="uq_phase_gate_artifacts_one",
        set_={
            "artifact_content": statement.excluded.artifact_content,
            "collected_by": statement.excluded.collected_by,
            "collected_at": func.clock_timestamp(),
        },
    )
    found = await tx.session.scalars(statement.returning(GateArtifact), execution_options={"populate_existing": True})
    return found.one()


async def live_tasks(tx: Tx, ticket_id: str, phase_id: str) -> int:
    """Tasks of a phase that have not ended."""
    statement = select(func.count()).where(
        Task.ticket_id == ticket_id,
        Task.phase_id == phase_id,
        Task.status.notin_(("completed", "failed", "cancelled")),
    )
    return await tx.session.scalar(statement) or 0


async def task_results(tx: Tx, ticket_id: str, phase_id: str) -> list[dict[str, Any]]:
    """Results of the completed tasks of a phase, oldest first."""
    rows = await tx.session.scalars(
        select(Task.result)
        .where(
            Task.ticket_id == ticket_id,
            Task.phase_id == phase_id,
            Task.status == "completed",
            Task.result.is_not(None),
        )
        .order_by(Task.completed_at)
        .limit(1000)
    )
    return [row for row in rows if row]


async def task_counts(tx: Tx, ticket_id: str, phase_id: str | None = None) -> tuple[int, int]:
    """Tasks of a ticket, of one phase or all, and those of them that are not completed and merged.

    One that was cancelled by itself is no work any more. Those whose execution was ended are: it may begin again.
    """
    done = (Task.status == "completed") & Task.merge_state.in_(("none", "merged"))
    dropped = (Task.status == "cancelled") & (Task.holds.op("&")(int(Hold.SPEC_NOT_EXECUTING)) == 0)
    statement = select(func.count(), func.count().filter(~done)).where(Task.ticket_id == ticket_id, ~dropped)
    if phase_id is not None:
        statement = statement.where(Task.phase_id == phase_id)
    row = (await tx.session.execute(statement)).one()
    return row[0], row[1]


async def completed_phases(tx: Tx, ticket_id: str) -> list[str]:
    """The phases in which a ticket has completed tasks."""
    statement = select(Task.phase_id).where(Task.ticket_id == ticket_id, Task.status == "completed").distinct()
    return list((await tx.session.scalars(statement)).all())


async def add_gate_result(tx: Tx, row: dict[str, Any]) -> None:
    """Insert what a validation found."""
    await tx.session.execute(insert(GateResult), [row])


async def ids_of_spec(tx: Tx, spec_id: str) -> list[str]:
    """The tickets of a spec."""
    return list(
        (await tx.session.scalars(select(Ticket.id).where(Ticket.spec_id == spec_id).order_by(Ticket.id))).all()
    )


async def hide_of_spec(tx: Tx, spec_id: str, hidden: bool) -> None:
    """Leave the tickets of a spec out of lists and counts, or take them in again."""
    locked = select(Ticket.id).where(Ticket.spec_id == spec_id).order_by(Ticket.id).with_for_update().cte("locked")
    await tx.session.execute(
        update(Ticket)
        .where(Ticket.id == locked.c.id)
        .values(hidden=hidden, version=Ticket.version + 1)
        .execution_options(synchronize_session=False)
    )


async def counts(
    tx: Tx, *, project_ids: Sequence[str] | None = None, organization_ids: Sequence[str] | None = None
) -> list[tuple[str, str, str, str, int]]:
    """(project, phase, status, priority, tickets), folded and not yet folded together."""
    found: dict[tuple[str, str, str, str], int] = {}
    for table in (TicketCount, TicketCountDelta):
        statement = select(
            table.project_id, table.phase_id, table.status, table.priority, func.sum(table.tickets)
        ).group_by(table.project_id, table.phase_id, table.status, table.priority)
        if project_ids is not None:
            statement = statement.where(table.project_id.in_(project_ids))
        if organization_ids is not None:
            statement = statement.where(table.organization_id.in_(organization_ids))
        for row in await tx.session.execute(statement):
            key = (row[0], row[1], row[2], row[3])
            found[key] = found.get(key, 0) + int(row[4])
    return [(*key, tickets) for key, tickets in sorted(found.items()) if tickets]


async def fold_counts(tx: Tx, limit: int) -> int:
    """Fold the oldest deltas into the counts. Returns how many counts changed."""
    connection = await tx.connection()
    status = await connection.execute(_FOLD, limit)
    return int(status.rpartition(" ")[2])


async def snapshot(tx: Tx, after: str, limit: int) -> list[Ticket]:
    """Tickets by id, for replicas."""
    rows = await tx.session.scalars(select(Ticket).where(Ticket.id > after).order_by(Ticket.id).limit(limit))
    return list(rows.all())
