"""What a dependency graph shows, and its critical path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workflow_service.dag import rules as dag


@dataclass(frozen=True, slots=True)
class Edge:
    """One line of the graph. Types: depends_on, parent_child, ticket_contains, ticket_blocks."""

    source: str
    target: str
    type: str
    label: str


LABELS = {
    "depends_on": "depends on",
    "parent_child": "parent of",
    "ticket_contains": "contains",
    "ticket_blocks": "blocks",
}


def edge(source: str, target: str, kind: str) -> Edge:
    """An edge with the label of its type."""
    return Edge(source, target, kind, LABELS[kind])


def within(edges: Sequence[Edge], nodes: set[str]) -> list[Edge]:
    """The edges with both ends in the graph."""
    return [one for one in edges if one.source in nodes and one.target in nodes]


def critical_path(task_ids: Sequence[str], edges: Sequence[Edge]) -> list[str]:
    """The longest chain of dependencies among the tasks, by number of tasks; empty without a dependency."""
    return dag.critical_path(task_ids, [(one.source, one.target) for one in edges if one.type == "depends_on"])
