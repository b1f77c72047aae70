"""Use cases of the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from servicekit.auth import Principal
from servicekit.db import Database, Tx
from workflow_service.engine.service import EngineService
from workflow_service.engine.tables import Ticket
from workflow_service.errors import TASK_NOT_FOUND
from workflow_service.graph import rules, store
from workflow_service.graph.rules import Edge
from workflow_service.graph.schemas import (
    BlockedTasks,
    BlockingTask,
    BlockingTasks,
    DependencyGraph,
    GraphEdge,
    GraphMetadata,
    GraphNode,
    WaitingTask,
)
from workflow_service.projects.service import ProjectService
from workflow_service.queue.rules import dependency_met
from workflow_service.queue.service import QueueService
from workflow_service.queue.tables import Task

MAX_TASKS = 10_000


class GraphService:
    """Dependency graphs of projects and tickets."""

    def __init__(self, db: Database, projects: ProjectService, engine: EngineService, queue: QueueService) -> None:
        self._db = db
        self._projects = projects
        self._engine = engine
        self._queue = queue

    async def of_project(self, principal: Principal, project_id: str, include_resolved: bool) -> DependencyGraph:
        """The tasks of a project with their tickets. Raises 404 for an unknown project."""
        async with self._db.reader() as tx:
            await self._projects.require(tx, principal, "ticket:read", project_id)
            rows = await store.tasks(
                tx, project_id=project_id, ticket_id=None, include_resolved=include_resolved, limit=MAX_TASKS + 1
            )
            tickets = await store.tickets(tx, list({row.ticket_id for row in rows}))
            blocks = await store.ticket_edges(tx, [ticket.id for ticket in tickets])
            return await self._graph(tx, rows, tickets, blocks)

    async def of_ticket(self, principal: Principal, ticket_id: str, include_resolved: bool) -> DependencyGraph:
        """The tasks of a ticket. Raises 404 for an unknown ticket."""
        async with self._db.reader() as tx:
            await self._engine.require(tx, principal, "ticket:read", ticket_id)
            rows = await store.tasks(
                tx, project_id=None, ticket_id=ticket_id, include_resolved=include_resolved, limit=MAX_TASKS + 1
            )
            return await self._graph(tx, rows, [], [])

    async def _graph(
        self, tx: Tx, rows: Sequence[Any], tickets: Sequence[Ticket], blocks: Sequence[tuple[str, str]]
    ) -> DependencyGraph:
        truncated = len(rows) > MAX_TASKS
        rows = rows[-MAX_TASKS:]
        ids = [row.id for row in rows]
        edges = [rules.edge(before, after, "depends_on") for before, after in await store.task_edges(tx, ids)]
        edges += [rules.edge(row.parent_task_id, row.id, "parent_child") for row in rows if row.parent_task_id]
        known = {ticket.id for ticket in tickets}
        edges += [
            rules.edge(f"ticket-{row.ticket_id}", row.id, "ticket_contains") for row in rows if row.ticket_id in known
        ]
        edges += [rules.edge(f"ticket-{a}", f"ticket-{b}", "ticket_blocks") for a, b in blocks]
        edges = rules.within(edges, {*ids, *(f"ticket-{one}" for one in known)})
        nodes = [_task_node(row, blocks_count) for row, blocks_count in _with_counts(rows, edges)]
        nodes += ticket_nodes(tickets, rows, blocks)
        path = rules.critical_path(ids, edges)
        return DependencyGraph(
            nodes=nodes,
            edges=[GraphEdge(source=one.source, target=one.target, type=one.type, label=one.label) for one in edges],
            metadata=GraphMetadata(
                total_tasks=len(rows),
                total_nodes=len(nodes),
                blocked_count=sum(1 for node in nodes if node.is_blocked),
                resolved_count=sum(1 for row in rows if row.status == "completed"),
                total_edges=len(edges),
                critical_path_length=len(path),
                critical_path=path,
                truncated=truncated,
            ),
        )

    async def blocked(self, principal: Principal, task_id: str) -> BlockedTasks:
        """What waits for a task."""
        async with self._db.reader() as tx:
            await self._require(tx, principal, task_id)
            rows = await store.waiting_for(tx, task_id)
            count = await store.count_waiting(tx, task_id)
        return BlockedTasks(task_id=task_id, blocked_tasks=[_waiting(row) for row in rows], blocked_count=count)

    async def blocking(self, principal: Principal, task_id: str) -> BlockingTasks:
        """What a task waits for."""
        async with self._db.reader() as tx:
            await self._require(tx, principal, task_id)
            rows = await store.waited_for(tx, task_id)
        return BlockingTasks(
            task_id=task_id,
            blocking_tasks=[
                BlockingTask(**_waiting(row).model_dump(), is_complete=dependency_met(row.status, row.merge_state))
                for row, _ in rows
            ],
            all_dependencies_complete=all(satisfied for _, satisfied in rows),
        )

    async def _require(self, tx: Tx, principal: Principal, task_id: str) -> Task:
        task = await self._queue.find(tx, task_id)
        if task is None:
            raise TASK_NOT_FOUND()
        principal.require("task:read", task.organization_id, missing=TASK_NOT_FOUND)
        return task


def _with_counts(rows: Sequence[Any], edges: Sequence[Edge]) -> list[tuple[Any, int]]:
    counts: dict[str, int] = {}
    for one in edges:
        if one.type == "depends_on":
            counts[one.source] = counts.get(one.source, 0) + 1
    return [(row, counts.get(row.id, 0)) for row in rows]


def _task_node(row: Any, blocks_count: int) -> GraphNode:
    return GraphNode(
        id=row.id,
        type="task",
        label=row.title or row.description or row.task_type,
        description=row.description,
        status=row.status,
        phase_id=row.phase_id,
        priority=row.priority,
        is_blocked=row.status == "pending" and row.unmet_dependencies > 0,
        blocks_count=blocks_count,
        ticket_id=row.ticket_id,
        task_type=row.task_type,
        assigned_agent_id=row.assigned_agent_id,
        created_at=row.created_at,
        started_at=row.started_at,
        completed_at=row.completed_at,
    )


def ticket_nodes(tickets: Sequence[Ticket], rows: Sequence[Any], blocks: Sequence[tuple[str, str]]) -> list[GraphNode]:
    """A node for each ticket. `rows`: the tasks that are counted; `blocks`: (blocker, blocked)."""
    status = {ticket.id: ticket.status for ticket in tickets}
    task_count: dict[str, int] = {}
    for row in rows:
        task_count[row.ticket_id] = task_count.get(row.ticket_id, 0) + 1
    waits_for: dict[str, list[str]] = {}
    blocks_count: dict[str, int] = {}
    for blocker, blocked in blocks:
        waits_for.setdefault(blocked, []).append(blocker)
        blocks_count[blocker] = blocks_count.get(blocker, 0) + 1
    nodes = []
    for ticket in tickets:
        before = waits_for.get(ticket.id, [])
        nodes.append(
            GraphNode(
                id=f"ticket-{ticket.id}",
                type="ticket",
                label=ticket.title,
                description=ticket.description,
                status=ticket.status,
                phase_id=ticket.phase_id,
                priority=ticket.priority,
                is_blocked=ticket.is_blocked or any(status[one] != "done" for one in before),
                blocks_count=blocks_count.get(ticket.id, 0),
                ticket_id=ticket.id,
                task_count=task_count.get(ticket.id, 0),
                blocked_by=before,
            )
        )
    return nodes


def _waiting(row: Task) -> WaitingTask:
    return WaitingTask(
        id=row.id, description=row.description, status=row.status, priority=row.priority, phase_id=row.phase_id
    )
