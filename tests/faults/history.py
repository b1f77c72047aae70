"""What the load asked for and what it was told: the evidence that the checker judges."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["invoke", "ok", "fail", "info"]
"""`ok`: acknowledged. `fail`: refused, so it has no effect. `info`: nobody knows. `invoke`: still under way."""

PREFIX = "op-"


@dataclass(slots=True)
class Operation:
    """One thing that a client wanted. Times are seconds since the history began."""

    id: str
    kind: str
    tenant: str
    asked: dict[str, Any]
    began: float
    ended: float | None = None
    outcome: Outcome = "invoke"
    status: int | None = None
    attempts: int = 0
    answer: dict[str, Any] = field(default_factory=dict)

    @property
    def may_have_happened(self) -> bool:
        return self.outcome != "fail"


@dataclass(slots=True)
class Request:
    """One HTTP request through the gateway, whatever it was for. `status` 0: no answer came."""

    at: float
    took: float
    prefix: str
    kind: str
    status: int
    retry_after: bool = False
    content_type: str = ""
    body: str = ""
    """The beginning of the answer where it is no success."""


@dataclass(slots=True)
class Frame:
    """One event frame of a WebSocket. `connection` counts the connections of one reader."""

    tenant: str
    connection: int
    sequence: int
    event_type: str
    entity_type: str
    entity_id: str


class History:
    """Everything of one run. Only the load's event loop appends, other threads may read."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.operations: list[Operation] = []
        self.requests: list[Request] = []
        self.frames: list[Frame] = []
        self._began = time.monotonic()
        self._numbers = itertools.count(1)

    def now(self) -> float:
        return time.monotonic() - self._began

    def next_id(self) -> str:
        """An id that the stored rows carry in a name or title, by which the checker finds them again."""
        return f"{PREFIX}{self.seed:x}-{next(self._numbers)}"

    def begin(self, kind: str, tenant: str, asked: dict[str, Any], identity: str | None = None) -> Operation:
        operation = Operation(identity or self.next_id(), kind, tenant, asked, self.now())
        self.operations.append(operation)
        return operation

    def end(self, operation: Operation, outcome: Outcome, status: int | None, answer: dict[str, Any]) -> None:
        operation.outcome, operation.status, operation.answer = outcome, status, answer
        operation.ended = self.now()

    def counts(self) -> dict[str, int]:
        """Operations by outcome; what is still open counts as unknown."""
        found = Counter("info" if item.outcome == "invoke" else item.outcome for item in self.operations)
        return {"ok": found["ok"], "fail": found["fail"], "info": found["info"]}

    def write(self, file: Path) -> None:
        """JSON lines in order of time: each operation as `invoke` and, where it ended, `ok`, `fail` or `info`."""
        lines: list[tuple[float, dict[str, Any]]] = []
        for item in self.operations:
            name = {"id": item.id, "kind": item.kind, "tenant": item.tenant}
            lines.append((item.began, {"time": round(item.began, 4), "type": "invoke", **name, "asked": item.asked}))
            if item.ended is not None:
                done = {"status": item.status, "attempts": item.attempts, "answer": item.answer}
                lines.append((item.ended, {"time": round(item.ended, 4), "type": item.outcome, **name, **done}))
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w") as target:
            for _, line in sorted(lines, key=lambda pair: pair[0]):
                target.write(json.dumps(line, default=str) + "\n")


def of_kind(operations: Iterable[Operation], *kinds: str) -> list[Operation]:
    """Operations of these kinds, in the order in which they began."""
    return [item for item in operations if item.kind in kinds]
