"""Pure graph decisions over tasks, on rustworkx.

A graph is given as nodes and edges `(before, after)`: `after` depends on `before`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

import rustworkx

Node = TypeVar("Node", bound=Hashable)
Edge = tuple[Node, Node]


def build(nodes: Sequence[Node], edges: Iterable[Edge[Node]]) -> rustworkx.PyDiGraph[Node, None]:
    """The graph of `nodes` with those `edges` that have both ends in it; node indexes follow the order of `nodes`."""
    graph: rustworkx.PyDiGraph[Node, None] = rustworkx.PyDiGraph(check_cycle=False, node_count_hint=len(nodes))
    graph.add_nodes_from(list(nodes))
    index = {node: position for position, node in enumerate(nodes)}
    graph.add_edges_from_no_data([(index[a], index[b]) for a, b in edges if a in index and b in index])
    return graph


def find_cycle(nodes: Sequence[Node], edges: Iterable[Edge[Node]]) -> list[Node] | None:
    """One cycle as the list of its nodes in order, a self-edge as one node; None when the graph is acyclic."""
    graph = build(nodes, edges)
    for source, target in graph.edge_list():
        if source == target:
            return [graph[source]]
    if rustworkx.is_directed_acyclic_graph(graph):
        return None
    return [graph[source] for source, _ in rustworkx.digraph_find_cycle(graph)]


def topological(nodes: Sequence[Node], edges: Iterable[Edge[Node]]) -> list[Node]:
    """All nodes, each after everything it depends on; among independent ones the given order is kept.

    Raises ValueError when there is a cycle.
    """
    graph = build(nodes, edges)
    position = {node: f"{place:012d}" for place, node in enumerate(nodes)}
    order = list(rustworkx.lexicographical_topological_sort(graph, key=lambda node: position[node]))
    if len(order) < len(nodes):
        raise ValueError("the graph has a cycle")
    return order


def critical_path(nodes: Sequence[Node], edges: Iterable[Edge[Node]]) -> list[Node]:
    """The longest chain by number of nodes, empty when there is no edge or a cycle."""
    graph = build(nodes, edges)
    if graph.num_edges() == 0:
        return []
    try:
        return [graph[index] for index in rustworkx.dag_longest_path(graph)]
    except rustworkx.DAGHasCycle:
        return []


def dependents(start: Iterable[Node], edges: Iterable[Edge[Node]]) -> set[Node]:
    """Everything that depends on one of `start`, directly or not, without `start` itself."""
    after: dict[Node, list[Node]] = {}
    for before, node in edges:
        after.setdefault(before, []).append(node)
    first = list(start)
    seen: set[Node] = set()
    stack = list(first)
    while stack:
        for node in after.get(stack.pop(), ()):
            if node not in seen:
                seen.add(node)
                stack.append(node)
    return seen.difference(first)
