"""SQL of tasks and their dependencies: reading, making, releasing, holding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, or_, select, update

from servicekit.db import Tx
from servicekit.db.inserts import insert_new
from workflow_service.projects.tables import Project
from workflow_service.queue.rules import Hold
from workflow_service.queue.tables import Task, TaskDependency

_DOWN = """
    SELECT d.task_id FROM task_dependencies d WHERE d.depends_on_id = ANY($1) AND NOT d.satisfied
    UNION
    SELECT d.task_id FROM task_dependencies d JOIN down ON d.depends_on_id = down.task_id WHERE NOT d.satisfied
"""
_SATISFY = """
WITH edge AS (
    UPDATE task_dependencies SET satisfied = true
    WHERE depends_on_id = ANY($1) AND NOT satisfied RETURNING task_id
), met AS (
    SELECT task_id, count(*)::int AS edges FROM edge GROUP BY task_id
), locked AS (
    SELECT t.id, met.edges FROM tasks t JOIN met ON met.task_id = t.id ORDER BY t.id FOR UPDATE OF t
)
UPDATE tasks t SET unmet_dependencies = greatest(t.unmet_dependencies - locked.edges, 0), version = t.version + 1,
    updated_at = clock_timestamp()
FROM locked WHERE t.id = locked.id
RETURNING t.id, t.status = 'pending' AND t.holds = 0 AND t.unmet_dependencies = 0
    AND (t.not_before IS NULL OR t.not_before <= clock_timestamp()) AS ready
"""
_HOLD_DEPENDENTS = f"""
WITH RECURSIVE down AS ({_DOWN}), locked AS (
    SELECT t.id FROM tasks t WHERE t.id IN (SELECT task_id FROM down) AND t.status = 'pending' AND t.holds & $2 = 0
    ORDER BY t.id FOR UPDATE
)
UPDATE tasks t SET holds = t.holds | $2, version = t.version + 1, updated_at = clock_timestamp()
FROM locked WHERE t.id = locked.id RETURNING t.id
"""
_FREE_DEPENDENTS = f"""
WITH RECURSIVE down AS ({_DOWN}), locked AS (
    SELECT t.id FROM tasks t WHERE t.id IN (SELECT task_id FROM down) AND t.holds & $2 <> 0 ORDER BY t.id FOR UPDATE
)
UPDATE tasks t SET holds = t.holds & ~$2, version = t.version + 1, updated_at = clock_timestamp()
FROM locked WHERE t.id = locked.id RETURNING t.id
"""
_LOST_ABOVE = """
WITH RECURSIVE up AS (
    SELECT d.depends_on_id AS id FROM task_dependencies d WHERE d.task_id = ANY($1) AND NOT d.satisfied
    UNION
    SELECT d.depends_on_id FROM task_dependencies d JOIN up ON d.task_id = up.id WHERE NOT d.satisfied
)
SELECT t.id FROM tasks t JOIN up ON up.id = t.id
WHERE t.status IN ('failed', 'cancelled') OR (t.status = 'completed' AND t.merge_state = 'failed')
"""
_ANNOUNCED = """
SELECT id FROM tasks WHERE id = ANY($1) AND status = 'pending' AND holds = 0 AND unmet_dependencies = 0
    AND (not_before IS NULL OR not_before <= clock_timestamp())
"""
_READY = """
SELECT id FROM tasks WHERE organization_id = $1 AND ($2::text IS NULL OR project_id = $2)
    AND status = 'pending' AND holds = 0 AND unmet_dependencies = 0
    AND (not_before IS NULL OR not_before <= clock_timestamp())
LIMIT $3
"""


async def now(tx: Tx) -> datetime:
    """The database's clock."""
    value: datetime = (await tx.session.scalars(select(func.clock_timestamp()))).one()
    return value


async def get(tx: Tx, task_id: str) -> Task | None:
    """One task."""
    return (await tx.session.scalars(select(Task).where(Task.id == task_id))).one_or_none()


async def get_many(tx: Tx, ids: Sequence[str]) -> list[Task]:
    """Those of these tasks that exist, in the order of their ids, as they are now in this transaction."""
    rows = await tx.session.scalars(
        select(Task).where(Task.id.in_(ids)).order_by(Task.id).execution_options(populate_existing=True)
    )
    return list(rows.all())


async def left_to_do(tx: Tx, ids: Sequence[str]) -> list[str]:
    """Those of these tasks that are not completed, or whose branch could not be merged."""
    rows = await tx.session.scalars(
        select(Task.id).where(Task.id.in_(ids), or_(Task.status != "completed", Task.merge_state == "failed"))
    )
    return list(rows.all())


async def waiting_elsewhere(tx: Tx, ids: Sequence[str], ticket_id: str) -> list[str]:
    """Tasks of other tickets than this one that depend on one of these."""
    rows = await tx.session.scalars(
        select(Task.id)
        .join(TaskDependency, TaskDependency.task_id == Task.id)
        .where(TaskDependency.depends_on_id.in_(ids), Task.ticket_id != ticket_id)
        .distinct()
        .order_by(Task.id)
    )
    return list(rows.all())


async def add_all(tx: Tx, rows: Sequence[dict[str, Any]]) -> list[Task]:
    """Insert tasks with all the same columns; returns them in their order."""
    return await insert_new(tx, Task, rows)


async def add_edges(tx: Tx, edges: Sequence[dict[str, Any]]) -> None:
    """Insert dependencies: task_id, depends_on_id, satisfied."""
    if edges:
        await tx.session.execute(insert(TaskDependency), list(edges))


async def targets_of(tx: Tx, ticket_ids: Sequence[str]) -> dict[str, str]:
    """The branches that the specs of these tickets are merged into, of those whose tasks a spec has made."""
    if not ticket_ids:
        return {}
    rows = await tx.session.execute(
        select(Task.ticket_id, func.max(Task.target_branch))
        .where(Task.ticket_id.in_(ticket_ids), Task.spec_id.is_not(None))
        .group_by(Task.ticket_id)
    )
    return {row[0]: row[1] for row in rows if row[1]}


async def delete_edges(tx: Tx, task_id: str, depends_on: Iterable[str]) -> None:
    """Delete dependencies of one task."""
    connection = await tx.connection()
    await connection.execute(
        "DELETE FROM task_dependencies WHERE task_id = $1 AND depends_on_id = ANY($2)", task_id, list(depends_on)
    )


async def dependencies_of(tx: Tx, task_ids: Sequence[str]) -> list[tuple[str, str, bool]]:
    """(task, depends on, satisfied) of these tasks, in a stable order."""
    rows = await tx.session.execute(
        select(TaskDependency.task_id, TaskDependency.depends_on_id, TaskDependency.satisfied)
        .where(TaskDependency.task_id.in_(task_ids))
        .order_by(TaskDependency.task_id, TaskDependency.depends_on_id)
    )
    return [(row[0], row[1], row[2]) for row in rows]


async def end_start_pauses(tx: Tx, project_id: str) -> list[str]:
    """Ends the pause of those tasks of a project that no sandbox could be made for. Returns them."""
    connection = await tx.connection()
    rows = await connection.fetch(
        """
        WITH paused AS (
            SELECT id FROM tasks
            WHERE project_id = $1 AND status = 'pending' AND not_before IS NOT NULL AND start_failures > 0
            ORDER BY id FOR UPDATE
        )
        UPDATE tasks t SET not_before = NULL, start_failures = 0, version = t.version + 1,
            updated_at = clock_timestamp()
        FROM paused WHERE t.id = paused.id RETURNING t.id
        """,
        project_id,
    )
    return [row["id"] for row in rows]


async def upstream_edges(tx: Tx, start: Sequence[str], limit: int) -> list[tuple[str, str]]:
    """(before, after) of every dependency above `start`, for the check for cycles; at most `limit`."""
    connection = await tx.connection()
    rows = await connection.fetch(
        """
        WITH RECURSIVE up AS (
            SELECT d.task_id, d.depends_on_id FROM task_dependencies d WHERE d.task_id = ANY($1)
            UNION
            SELECT d.task_id, d.depends_on_id FROM task_dependencies d JOIN up ON d.task_id = up.depends_on_id
        )
        SELECT depends_on_id, task_id FROM up LIMIT $2
        """,
        list(start),
        limit,
    )
    return [(row["depends_on_id"], row["task_id"]) for row in rows]


async def count_dependents(tx: Tx, ids: Sequence[str]) -> dict[str, int]:
    """How many pending tasks depend on each of these."""
    rows = await tx.session.execute(
        select(TaskDependency.depends_on_id, func.count())
        .join(Task, Task.id == TaskDependency.task_id)
        .where(TaskDependency.depends_on_id.in_(ids), Task.status == "pending")
        .group_by(TaskDependency.depends_on_id)
    )
    return {row[0]: row[1] for row in rows}


async def satisfy(tx: Tx, ids: Sequence[str]) -> list[str]:
    """Let go what depends on these tasks; each dependency counts once. Returns tasks that became claimable."""
    connection = await tx.connection()
    rows = await connection.fetch(_SATISFY, list(ids))
    return [row["id"] for row in rows if row["ready"]]


async def hold_dependents(tx: Tx, ids: Sequence[str], hold: Hold) -> list[str]:
    """Set a hold on every pending task below these. Returns those newly held."""
    connection = await tx.connection()
    return [row["id"] for row in await connection.fetch(_HOLD_DEPENDENTS, list(ids), int(hold))]


async def lost_above(tx: Tx, ids: Sequence[str]) -> list[str]:
    """What these tasks wait for, directly or not, and that never comes unless someone acts."""
    connection = await tx.connection()
    return [row["id"] for row in await connection.fetch(_LOST_ABOVE, list(ids))]


async def free_dependents(tx: Tx, ids: Sequence[str], hold: Hold) -> list[str]:
    """Clear a hold on everything below these tasks; set it again below those that are still lost."""
    connection = await tx.connection()
    freed = [row["id"] for row in await connection.fetch(_FREE_DEPENDENTS, list(ids), int(hold))]
    if not freed:
        return []
    lost = await lost_above(tx, freed)
    if lost:
        await connection.fetch(_HOLD_DEPENDENTS, lost, int(hold))
    return freed


async def claimable(tx: Tx, ids: Sequence[str]) -> list[Task]:
    """Those of these tasks that may be claimed now."""
    connection = await tx.connection()
    found = [row["id"] for row in await connection.fetch(_ANNOUNCED, list(ids))]
    return await get_many(tx, found) if found else []


async def ready(tx: Tx, organization_id: str, project_id: str | None, limit: int) -> list[Task]:
    """Some tasks of an organization, or of one of its projects, that may be claimed now."""
    connection = await tx.connection()
    rows = await connection.fetch(_READY, organization_id, project_id, limit)
    return await get_many(tx, [row["id"] for row in rows]) if rows else []


async def set_hold(tx: Tx, hold: Hold, on: bool, column: str, value: str) -> list[str]:
    """Set or clear one hold on all live tasks of a ticket, spec, project or execution. Returns the tasks changed."""
    field = {
        "ticket": Task.ticket_id,
        "spec": Task.spec_id,
        "project": Task.project_id,
        "execution": Task.execution_id,
    }[column]
    bit = int(hold)
    locked = (
        select(Task.id)
        .where(
            field == value,
            Task.status.in_(("pending", "needs_revision", "assigned", "running", "claiming")),
            Task.holds.op("&")(bit) == (0 if on else bit),
        )
        .order_by(Task.id)
        .with_for_update()
        .cte("locked")
    )
    changed = Task.holds.op("|")(bit) if on else Task.holds.op("&")(~bit)
    rows = await tx.session.scalars(
        update(Task)
        .where(Task.id == locked.c.id)
        .values(holds=changed, version=Task.version + 1, updated_at=func.clock_timestamp())
        .returning(Task.id)
        .execution_options(synchronize_session=False)
    )
    return list(rows.all())


async def hold_all_of_execution(tx: Tx, execution_id: str, hold: Hold) -> None:
    """Set a hold on all tasks of an execution, ended ones too."""
    connection = await tx.connection()
    await connection.execute(
        """
        WITH locked AS (SELECT id FROM tasks WHERE execution_id = $1 AND holds & $2 = 0 ORDER BY id FOR UPDATE)
        UPDATE tasks t SET holds = t.holds | $2, version = t.version + 1 FROM locked WHERE t.id = locked.id
        """,
        execution_id,
        int(hold),
    )


async def hide_of_tickets(tx: Tx, ticket_ids: Sequence[str], hidden: bool) -> list[str]:
    """Leave the tasks of tickets out of lists and hold them, or the reverse. Returns the tasks changed."""
    connection = await tx.connection()
    rows = await connection.fetch(
        """
        WITH locked AS (
            SELECT id FROM tasks WHERE ticket_id = ANY($1) AND (hidden <> $2 OR (holds & $3 <> 0) <> $2)
            ORDER BY id FOR UPDATE
        )
        UPDATE tasks t SET hidden = $2, holds = CASE WHEN $2 THEN t.holds | $3 ELSE t.holds & ~$3 END,
            version = t.version + 1, updated_at = clock_timestamp()
        FROM locked WHERE t.id = locked.id RETURNING t.id
        """,
        list(ticket_ids),
        hidden,
        int(Hold.SPEC_ARCHIVED),
    )
    return [row["id"] for row in rows]


async def set_autonomy(tx: Tx, project_id: str, on: bool) -> list[str]:
    """Set or clear NOT_AUTONOMOUS on the project's pending tasks that belong to no spec and are not forced."""
    connection = await tx.connection()
    rows = await connection.fetch(
        """
        WITH locked AS (
            SELECT id FROM tasks WHERE project_id = $1 AND spec_id IS NULL AND status = 'pending'
                AND NOT coalesce((execution_config->>'force_execute')::boolean, false)
                AND (holds & $2 = 0) = $3
            ORDER BY id FOR UPDATE
        )
        UPDATE tasks t SET holds = CASE WHEN $3 THEN t.holds | $2 ELSE t.holds & ~$2 END, version = t.version + 1,
            updated_at = clock_timestamp()
        FROM locked WHERE t.id = locked.id RETURNING t.id
        """,
        project_id,
        int(Hold.NOT_AUTONOMOUS),
        not on,
    )
    return [row["id"] for row in rows]


async def has_repository(tx: Tx, project_id: str) -> bool:
    """Whether sandboxes of a project's tasks have a repository to push to."""
    state = await tx.session.scalar(select(Project.repository_state).where(Project.id == project_id))
    return state == "ready"


async def keeps_repository(tx: Tx, project_id: str) -> bool:
    """Whether vcs keeps a repository of the project, in whatever state."""
    state = await tx.session.scalar(select(Project.repository_state).where(Project.id == project_id))
    return state not in (None, "none")


async def projects_of(tx: Tx, ids: Iterable[str]) -> dict[str, Project]:
    """Projects by id; those that this transaction has read already are not read again."""
    wanted = list(ids)
    if len(wanted) == 1:
        project = await tx.session.get(Project, wanted[0])
        return {} if project is None else {project.id: project}
    rows = await tx.session.scalars(select(Project).where(Project.id.in_(wanted)))
    return {project.id: project for project in rows}


async def share_projects(tx: Tx, ids: Iterable[str]) -> dict[str, Project]:
    """Projects by id, as they are and stay until this transaction has ended."""
    rows = await tx.session.scalars(
        select(Project)
        .where(Project.id.in_(sorted(ids)))
        .order_by(Project.id)
        .with_for_update(read=True)
        .execution_options(populate_existing=True)
    )
    return {project.id: project for project in rows}


async def active_counts(tx: Tx, organization_id: str, project_id: str) -> tuple[int, int]:
    """Tasks that count against the limits: of the organization, of the project."""
    active = ("claiming", "assigned", "running", "validating")
    row = (
        await tx.session.execute(
            select(func.count(), func.count().filter(Task.project_id == project_id)).where(
                Task.organization_id == organization_id, Task.status.in_(active)
            )
        )
    ).one()
    return row[0], row[1]


async def execution_counts(tx: Tx, execution_id: str) -> dict[tuple[str, str, bool], int]:
    """Tasks of an execution by (status, merge state, held by a lost dependency)."""
    held = (Task.holds.op("&")(int(Hold.DEPENDENCY_FAILED)) != 0).label("held")
    rows = await tx.session.execute(
        select(Task.status, Task.merge_state, held, func.count())
        .where(Task.execution_id == execution_id)
        .group_by(Task.status, Task.merge_state, held)
    )
    return {(row[0], row[1], row[2]): row[3] for row in rows}


async def snapshot(tx: Tx, after: str, limit: int) -> list[Task]:
    """Tasks by id, for replicas."""
    return list((await tx.session.scalars(select(Task).where(Task.id > after).order_by(Task.id).limit(limit))).all())


async def counts_by_status(tx: Tx, organization_ids: Sequence[str]) -> list[tuple[str, str, int]]:
    """(organization, status, tasks)."""
    rows = await tx.session.execute(
        select(Task.organization_id, Task.status, func.count())
        .where(Task.organization_id.in_(organization_ids))
        .group_by(Task.organization_id, Task.status)
    )
    return [(row[0], row[1], row[2]) for row in rows]
