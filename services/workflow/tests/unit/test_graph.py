"""Nodes of the graph cost what there are of them, not tickets times edges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow_service.engine.tables import Ticket
from workflow_service.graph.service import ticket_nodes


class Counted(list[Any]):
    """A list that knows how often it was walked through."""

    walks = 0

    def __iter__(self) -> Iterator[Any]:
        self.walks += 1
        return super().__iter__()


def test_edges_of_tickets_are_walked_once() -> None:
    tickets = [
        Ticket(id=f"t{n}", title="T", status="done" if n == 0 else "backlog", phase_id="PHASE_BACKLOG", priority="LOW",
               is_blocked=False)
        for n in range(4)
    ]  # fmt: skip
    blocks = Counted([("t0", "t1"), ("t0", "t2"), ("t1", "t3"), ("t2", "t3")])
    nodes = {node.ticket_id: node for node in ticket_nodes(tickets, [], blocks)}
    assert {key: node.blocked_by for key, node in nodes.items()} == {
        "t0": [], "t1": ["t0"], "t2": ["t0"], "t3": ["t1", "t2"]
    }  # fmt: skip
    assert {key: node.blocks_count for key, node in nodes.items()} == {"t0": 2, "t1": 1, "t2": 1, "t3": 0}
    assert [key for key, node in nodes.items() if node.is_blocked] == ["t3"]
    assert blocks.walks == 1
