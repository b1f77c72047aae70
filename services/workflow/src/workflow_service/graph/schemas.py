"""What the graph answers."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel


class GraphNode(BaseModel):
    """A task (`type` task) or a ticket (`type` ticket, `id` with the prefix `ticket-`)."""

    id: str
    type: str
    label: str
    description: str | None = None
    status: str
    phase_id: str
    priority: str
    is_blocked: bool
    blocks_count: int
    ticket_id: str
    task_type: str | None = None
    assigned_agent_id: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    task_count: int | None = None
    blocked_by: list[str] | None = None


class GraphEdge(BaseModel):
    """A line from what comes first to what comes after."""

    source: str
    target: str
    type: str
    label: str


class GraphMetadata(BaseModel):
    """Figures of the graph; `truncated` when it holds only the newest 10,000 tasks."""

    total_tasks: int
    total_nodes: int
    blocked_count: int
    resolved_count: int
    total_edges: int
    critical_path_length: int
    critical_path: list[str]
    truncated: bool


class DependencyGraph(BaseModel):
    """Nodes and edges."""

    nodes: list[GraphNode]
    edges: list[GraphEdge]
    metadata: GraphMetadata


class WaitingTask(BaseModel):
    """A task that waits."""

    id: str
    description: str | None
    status: str
    priority: str
    phase_id: str


class BlockedTasks(BaseModel):
    """Tasks that wait for this one (the first 500)."""

    task_id: str
    blocked_tasks: list[WaitingTask]
    blocked_count: int


class BlockingTask(WaitingTask):
    """A task that comes first."""

    is_complete: bool


class BlockingTasks(BaseModel):
    """Tasks that this one waits for."""

    task_id: str
    blocking_tasks: list[BlockingTask]
    all_dependencies_complete: bool
