"""Rows that the measured operations find, written straight into the services' tables: making 100,000 tickets one by
one would take longer than everything else.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

SETTLED_S = 120.0

# The seven phases in turn, each with the status that goes with it.
_TICKETS = """
INSERT INTO tickets (id, organization_id, project_id, title, description, phase_id, status, priority, context,
                     approval_status, created_at, updated_at)
SELECT gen_random_uuid()::text, $1, $2, 'Ticket ' || n, 'What is to be done about number ' || n,
       (ARRAY['PHASE_BACKLOG', 'PHASE_REQUIREMENTS', 'PHASE_DESIGN', 'PHASE_IMPLEMENTATION', 'PHASE_TESTING',
              'PHASE_DEPLOYMENT', 'PHASE_DONE'])[1 + n % 7],
       (ARRAY['backlog', 'analyzing', 'analyzing', 'building', 'testing', 'building-done', 'done'])[1 + n % 7],
       (ARRAY['LOW', 'MEDIUM', 'HIGH', 'CRITICAL'])[1 + n % 4], '{}'::jsonb, 'approved',
       clock_timestamp() - make_interval(secs => $3 - n), clock_timestamp() - make_interval(secs => $3 - n)
FROM generate_series(1, $3::int) AS n
"""
_TICKET_OF_TASKS = """
INSERT INTO tickets (id, organization_id, project_id, title, phase_id, status, priority, approval_status)
VALUES ('bench-queue', $1, $2, 'Claims', 'PHASE_IMPLEMENTATION', 'building', 'MEDIUM', 'approved')
"""
_TASKS = """
INSERT INTO tasks (id, organization_id, project_id, ticket_id, phase_id, task_type, title, description, priority, score)
SELECT gen_random_uuid()::text, $1, $2, 'bench-queue', 'PHASE_IMPLEMENTATION', 'implementation', 'Task ' || n,
       'Do number ' || n, 'MEDIUM', (n % 100)::float8 / 100
FROM generate_series(1, $3::int) AS n
"""
_NO_LIMIT = """
WITH plan AS (
    INSERT INTO queue_limits (organization_id, agents_limit) VALUES ($1, -1) ON CONFLICT DO NOTHING
)
INSERT INTO replica_organizations (organization_id, version) VALUES ($1, 1000000)
ON CONFLICT (organization_id) DO UPDATE SET max_concurrent_agents = NULL, version = excluded.version
"""
_SANDBOXES = """
INSERT INTO sandbox_streams (sandbox_id, organization_id, agent_id, task_id, ticket_id, project_id, spec_id,
                             execution_id, attempt)
SELECT 'bench-sandbox-' || n, $1, 'bench-agent', 'bench-task-' || n, 'bench-ticket', 'bench-project', '', '', 1
FROM generate_series(1, $2::int) AS n RETURNING sandbox_id
"""


async def tickets(connection: Any, organization_id: str, project_id: str, count: int) -> None:
    """`count` tickets of a project, a second apart, the last one now."""
    await connection.execute(_TICKETS, organization_id, project_id, count)


async def tasks(connection: Any, organization_id: str, project_id: str, count: int) -> None:
    """`count` tasks that may be claimed at once."""
    await connection.execute(_TICKET_OF_TASKS, organization_id, project_id)
    await connection.execute(_NO_LIMIT, organization_id)
    await connection.execute(_TASKS, organization_id, project_id, count)


async def settle(connection: Any) -> None:
    """Wait until the service has folded the counts of what came in at once, and let the planner know the sizes."""
    until = time.monotonic() + SETTLED_S
    while await connection.fetchval("SELECT EXISTS (SELECT FROM ticket_count_deltas)"):
        if time.monotonic() > until:
            raise RuntimeError(f"the counts of the tickets were not folded within {SETTLED_S:g} s")
        await asyncio.sleep(0.5)
    await connection.execute("VACUUM (ANALYZE) tickets, tasks, ticket_counts, ticket_count_deltas")


async def sandboxes(connection: Any, organization_id: str, count: int) -> list[str]:
    """Sandboxes that may report."""
    return [row["sandbox_id"] for row in await connection.fetch(_SANDBOXES, organization_id, count)]
