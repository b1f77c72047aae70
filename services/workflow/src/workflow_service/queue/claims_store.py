"""SQL of claims and leases, on the raw connection: each hand-over is one statement."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg

from servicekit.db import Tx
from workflow_service.locks.rules import LockClass, advisory_lock

# One lane is a project with claimable tasks. The recursion walks from lane to lane along ix_tasks_ready, so that its
# cost is the number of lanes, not of tasks; in each lane the best rows are read from the same index. Rows that another
# claim holds are skipped, and a lane gives no more than its project has room for.
_CLAIM = """
WITH RECURSIVE lane AS (
    SELECT first.organization_id, first.project_id
    FROM unnest($1::text[]) AS o(organization_id)
    CROSS JOIN LATERAL (
        SELECT t.organization_id, t.project_id FROM tasks t
        WHERE t.organization_id = o.organization_id
            AND t.status = 'pending' AND t.holds = 0 AND t.unmet_dependencies = 0
        ORDER BY t.organization_id, t.project_id LIMIT 1
    ) first
    UNION ALL
    SELECT following.organization_id, following.project_id
    FROM lane
    CROSS JOIN LATERAL (
        SELECT t.organization_id, t.project_id FROM tasks t
        WHERE t.organization_id = lane.organization_id AND t.project_id > lane.project_id
            AND t.status = 'pending' AND t.holds = 0 AND t.unmet_dependencies = 0
        ORDER BY t.organization_id, t.project_id LIMIT 1
    ) following
), organization AS (
    SELECT o.organization_id, o.room - (
        CASE WHEN o.room IS NULL THEN 0 ELSE (
            SELECT count(*) FROM tasks t WHERE t.organization_id = o.organization_id
                AND t.status IN ('claiming', 'assigned', 'running', 'validating')) END) AS room
    FROM unnest($1::text[], $2::int[]) AS o(organization_id, room)
), room AS (
    SELECT lane.organization_id, lane.project_id, organization.room AS organization_room,
        CASE WHEN l.cap < 0 THEN $3::int ELSE l.cap - (
            SELECT count(*) FROM (
                SELECT 1 FROM tasks t WHERE t.organization_id = lane.organization_id AND t.project_id = lane.project_id
                    AND t.status IN ('claiming', 'assigned', 'running', 'validating') LIMIT l.cap) busy) END AS room
    FROM lane
    JOIN organization ON organization.organization_id = lane.organization_id
    JOIN projects p ON p.id = lane.project_id
    CROSS JOIN LATERAL (SELECT coalesce(p.max_concurrent_tasks, $4::int) AS cap) l
    WHERE ($5::text[] IS NULL OR lane.project_id = ANY($5))
        AND (organization.room IS NULL OR organization.room > 0)
), candidate AS (
    SELECT best.id, best.score, best.ready_at, room.organization_id, room.organization_room
    FROM room
    CROSS JOIN LATERAL (
        SELECT t.id, t.score, greatest(t.updated_at, t.not_before) AS ready_at FROM tasks t
        WHERE t.organization_id = room.organization_id AND t.project_id = room.project_id
            AND t.status = 'pending' AND t.holds = 0 AND t.unmet_dependencies = 0
            AND (t.not_before IS NULL OR t.not_before <= clock_timestamp())
            AND t.required_capabilities <@ $6::text[]
        ORDER BY t.score DESC, t.id
        LIMIT greatest(least($3::bigint, room.room, coalesce(room.organization_room, $3::bigint)), 0)
        FOR UPDATE SKIP LOCKED
    ) best
), ranked AS (
    SELECT id, score, ready_at, organization_room,
        row_number() OVER (PARTITION BY organization_id ORDER BY score DESC, id) AS place
    FROM candidate
), picked AS (
    SELECT id, ready_at, row_number() OVER (ORDER BY score DESC, id) AS place FROM ranked
    WHERE organization_room IS NULL OR place <= organization_room
    ORDER BY score DESC, id LIMIT $3::bigint
)
UPDATE tasks t SET status = 'assigned', attempt = t.attempt + 1, sandbox_id = ($7::text[])[picked.place],
    assigned_agent_id = ($8::text[])[picked.place], claimed_at = clock_timestamp(),
    lease_expires_at = clock_timestamp() + make_interval(secs => $9), started_at = NULL, timeout_at = NULL,
    not_before = NULL, version = t.version + 1, updated_at = clock_timestamp()
FROM picked WHERE t.id = picked.id
RETURNING t.id, t.organization_id, t.assigned_agent_id, t.project_id, t.ticket_id, t.spec_id, t.execution_id,
    t.phase_id, t.task_type, t.priority, t.status, t.title, t.version, t.description, t.attempt, t.sandbox_id,
    t.lease_expires_at, t.timeout_seconds, t.target_branch, t.execution_config, t.context, t.owned_files,
    t.retry_count, t.error_message, picked.place,
    (SELECT p.repository_state = 'ready' FROM projects p WHERE p.id = t.project_id) AS has_repository,
    ARRAY(SELECT DISTINCT other.target_branch
        FROM task_dependencies d JOIN tasks other ON other.id = d.depends_on_id
        WHERE d.task_id = t.id AND other.project_id = t.project_id AND other.target_branch <> t.target_branch
    ) AS dependency_branches,
    extract(epoch FROM clock_timestamp() - picked.ready_at)::float8 AS waited_s
"""
_HEARTBEAT = """
WITH given AS (
    SELECT * FROM unnest($1::text[], $2::int[], $3::text[]) AS g(id, attempt, sandbox_id)
), locked AS (
    SELECT t.id FROM tasks t JOIN given g ON g.id = t.id AND g.attempt = t.attempt AND g.sandbox_id = t.sandbox_id
    WHERE t.status IN ('assigned', 'running') ORDER BY t.id FOR UPDATE OF t
)
UPDATE tasks t SET lease_expires_at = clock_timestamp() + make_interval(secs => $4)
FROM locked WHERE t.id = locked.id RETURNING t.id, t.lease_expires_at
"""


_PREPARE = (
    "SELECT set_config('plan_cache_mode', 'force_generic_plan', true)"
    f" UNION ALL SELECT {advisory_lock(LockClass.CLAIMS, 'o')}::text"
    " FROM (SELECT o FROM unnest($1::text[]) o ORDER BY o) s"
)


async def prepare(tx: Tx, organization_ids: Sequence[str]) -> None:
    """Prepare this transaction for a claim.

    One claim at a time counts and takes in each of `organization_ids`, until the commit; none where nothing is
    limited. The plan of the claim is the same for all arguments, and making it anew costs more than running it.
    """
    connection = await tx.connection()
    await connection.fetch(_PREPARE, list(organization_ids))


async def claim(
    tx: Tx,
    *,
    organization_ids: Sequence[str],
    organization_limits: Sequence[int | None],
    maximum: int,
    project_cap: int,
    project_ids: Sequence[str] | None,
    capabilities: Sequence[str],
    sandbox_ids: Sequence[str],
    agent_ids: Sequence[str],
    lease_s: int,
) -> list[asyncpg.Record]:
    """Hand out up to `maximum` claimable tasks, best score first, in one statement; never one task twice.

    The task in place n goes to the nth of `sandbox_ids` and of `agent_ids`.
    """
    connection = await tx.connection()
    rows = await connection.fetch(
        _CLAIM,
        list(organization_ids),
        list(organization_limits),
        maximum,
        project_cap,
        None if project_ids is None else list(project_ids),
        list(capabilities),
        list(sandbox_ids),
        list(agent_ids),
        float(lease_s),
    )
    return sorted(rows, key=lambda row: row["place"])


async def renew(tx: Tx, attempts: Sequence[tuple[str, int, str]], lease_s: int) -> dict[str, datetime]:
    """Renew the leases that these attempts (task, attempt, sandbox) hold; task → new end."""
    connection = await tx.connection()
    ids, numbers, sandboxes = (list(column) for column in zip(*attempts, strict=True))
    rows = await connection.fetch(_HEARTBEAT, ids, numbers, sandboxes, float(lease_s))
    return {row["id"]: row["lease_expires_at"] for row in rows}


async def leases(tx: Tx, ids: Sequence[str]) -> dict[str, asyncpg.Record]:
    """Status, attempt, sandbox and lease of tasks, without a lock."""
    connection = await tx.connection()
    rows = await connection.fetch(
        "SELECT id, status, attempt, sandbox_id, lease_expires_at FROM tasks WHERE id = ANY($1)", list(ids)
    )
    return {row["id"]: row for row in rows}


async def expired(tx: Tx, limit: int) -> list[str]:
    """Tasks whose lease ran out."""
    return await _ids(
        tx,
        "SELECT id FROM tasks WHERE status IN ('assigned', 'running') AND lease_expires_at < clock_timestamp()"
        " ORDER BY lease_expires_at LIMIT $1",
        limit,
    )


async def timed_out(tx: Tx, limit: int) -> list[str]:
    """Tasks that run longer than they may."""
    return await _ids(
        tx,
        "SELECT id FROM tasks WHERE status = 'running' AND timeout_at < clock_timestamp() ORDER BY timeout_at LIMIT $1",
        limit,
    )


async def end_backoff(tx: Tx, limit: int) -> list[str]:
    """Clear `not_before` where it has passed. Returns those tasks."""
    return await _ids(
        tx,
        """
        WITH due AS (
            SELECT id FROM tasks WHERE status = 'pending' AND not_before <= clock_timestamp()
            ORDER BY not_before LIMIT $1 FOR UPDATE SKIP LOCKED
        )
        UPDATE tasks t SET not_before = NULL FROM due WHERE t.id = due.id RETURNING t.id
        """,
        limit,
    )


async def due_for_rescore(tx: Tx, limit: int) -> list[asyncpg.Record]:
    """Pending tasks whose score is due again, locked, with the number of pending tasks that depend on each."""
    connection = await tx.connection()
    return list(
        await connection.fetch(
            """
            SELECT t.id, t.priority, t.created_at, t.retry_count, t.max_retries, t.deadline_at, (
                SELECT count(*) FROM task_dependencies d JOIN tasks c ON c.id = d.task_id
                WHERE d.depends_on_id = t.id AND NOT d.satisfied AND c.status = 'pending')::int AS dependents
            FROM tasks t WHERE t.status = 'pending' AND t.rescore_at <= clock_timestamp()
            ORDER BY t.rescore_at LIMIT $1 FOR UPDATE OF t SKIP LOCKED
            """,
            limit,
        )
    )


async def save_scores(tx: Tx, scores: Sequence[tuple[str, float, datetime | None]]) -> None:
    """Write scores and when each is due again."""
    connection = await tx.connection()
    columns: list[list[Any]] = [list(column) for column in zip(*scores, strict=True)]
    await connection.execute(
        "UPDATE tasks t SET score = s.score, rescore_at = s.due"
        " FROM unnest($1::text[], $2::float8[], $3::timestamptz[]) AS s(id, score, due) WHERE t.id = s.id",
        *columns,
    )


async def missed_releases(tx: Tx, within_s: float, limit: int) -> list[str]:
    """Tasks completed and merged lately that something still waits for: a release that was missed."""
    return await _ids(
        tx,
        """
        SELECT DISTINCT p.id FROM tasks p JOIN task_dependencies d ON d.depends_on_id = p.id AND NOT d.satisfied
        WHERE p.status = 'completed' AND p.merge_state IN ('none', 'merged')
            AND p.updated_at >= clock_timestamp() - make_interval(secs => $2)
        LIMIT $1
        """,
        limit,
        within_s,
    )


async def _ids(tx: Tx, statement: str, *arguments: Any) -> list[str]:
    connection = await tx.connection()
    return [row["id"] for row in await connection.fetch(statement, *arguments)]


async def let_go(tx: Tx, task_id: str) -> list[str]:
    """Ids of the pending tasks that depend on this one and wait for no task any more, at most 500."""
    rows = await (await tx.connection()).fetch(
        """
        SELECT t.id FROM task_dependencies d JOIN tasks t ON t.id = d.task_id
        WHERE d.depends_on_id = $1 AND t.unmet_dependencies = 0 AND t.status = 'pending' ORDER BY t.id LIMIT 500
        """,
        task_id,
    )
    return [row["id"] for row in rows]
