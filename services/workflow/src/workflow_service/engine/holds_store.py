"""SQL that looks for holds without a cause, and for causes without a hold."""

from __future__ import annotations

import asyncpg

from servicekit.db import Tx
from workflow_service.queue.rules import REMEDIATION, Hold

# A window of the primary key, the newest first, so that the cost does not grow with the number of tasks.
_WRONG = f"""
WITH seen AS (
    SELECT id FROM tasks WHERE id < $1 ORDER BY id DESC LIMIT $2
), wanted AS (
    SELECT t.id, t.holds,
        CASE WHEN p.status IN ('archived', 'paused', 'completed') THEN {Hold.PROJECT_NOT_ACTIVE:d} ELSE 0 END
        | CASE WHEN p.repository_state NOT IN ('none', 'ready') THEN {Hold.REPOSITORY_NOT_READY:d} ELSE 0 END
        | CASE WHEN t.spec_id IS NULL AND NOT p.autonomous_execution_enabled
            AND NOT coalesce((t.execution_config->>'force_execute')::boolean, false)
            THEN {Hold.NOT_AUTONOMOUS:d} ELSE 0 END
        | CASE WHEN k.approval_status <> 'approved' THEN {Hold.TICKET_NOT_APPROVED:d} ELSE 0 END
        | CASE WHEN k.is_blocked AND t.task_type <> '{REMEDIATION}' THEN {Hold.TICKET_BLOCKED:d} ELSE 0 END
        | CASE WHEN k.hidden THEN {Hold.SPEC_ARCHIVED:d} ELSE 0 END
        | CASE WHEN EXISTS (
            SELECT 1 FROM ticket_dependencies d JOIN tickets b ON b.id = d.blocked_by_id
            WHERE d.ticket_id = k.id AND b.status <> 'done' AND b.approval_status NOT IN ('rejected', 'timed_out')
        ) THEN {Hold.TICKET_WAITS:d} ELSE 0 END AS holds_wanted
    FROM seen JOIN tasks t ON t.id = seen.id AND t.status = 'pending'
    JOIN projects p ON p.id = t.project_id JOIN tickets k ON k.id = t.ticket_id
)
SELECT (SELECT min(id) FROM seen) AS last,
    (SELECT array_agg(id) FROM wanted WHERE holds & $3 <> holds_wanted) AS wrong
"""


async def wrong_holds(tx: Tx, before: str, window: int, mask: int) -> tuple[str | None, list[str]]:
    """(the last id of the `window` tasks below `before`, None where there is none; those whose holds are wrong)."""
    connection = await tx.connection()
    row: asyncpg.Record = await connection.fetchrow(_WRONG, before, window, mask)
    return row["last"], list(row["wrong"] or ())
