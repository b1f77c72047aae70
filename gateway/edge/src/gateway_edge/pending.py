"""Operations of the contract that are not built yet: how they are listed, matched and told apart from built ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gateway_edge.layout import PENDING
from gateway_edge.routes import is_parameter


@dataclass(frozen=True, order=True)
class Operation:
    """A method and a path template: ``GET /api/v1/tasks/{task_id}``."""

    method: str
    path: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The template's segments; a trailing slash gives a last empty one."""
        return tuple(self.path.split("/")[1:])

    @property
    def key(self) -> tuple[str, str]:
        """What makes two operations the same whatever their parameters are called: ``("GET", "/api/v1/tasks/{}")``."""
        return self.method, "/" + "/".join("{}" if is_parameter(part) else part for part in self.parts)

    @cached_property
    def regex(self) -> re.Pattern[str]:
        return re.compile(f"^{self.expression}$")

    @property
    def expression(self) -> str:
        """The path as a regular expression that Python and Go read alike, without anchors.

        A last parameter named ``path`` stands for one or more segments, any other parameter for one.
        """
        pieces = []
        for index, part in enumerate(self.parts):
            if not is_parameter(part):
                pieces.append(re.escape(part).replace(r"\-", "-"))
            elif part == "{path}" and index == len(self.parts) - 1:
                pieces.append(".+")
            else:
                pieces.append("[^/]+")
        return "/" + "/".join(pieces)

    def matches(self, method: str, path: str) -> bool:
        return method == self.method and self.regex.match(path) is not None

    def shadows(self, other: Operation) -> bool:
        """Whether this template also matches the paths of another one (``/tasks/{id}`` that of ``/tasks/stats``)."""
        if self.method != other.method or self.key == other.key:
            return False
        sample = "/" + "/".join("x" if is_parameter(part) else part for part in other.parts)
        return self.regex.match(sample) is not None


def parse_operations(text: str) -> list[Operation]:
    """``METHOD PATH`` per line; empty lines and lines that start with ``#`` do not count."""
    operations = []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            method, path = line.split()
            operations.append(Operation(method, path))
    return operations


def read(path: Path = PENDING) -> list[Operation]:
    """The operations of a file; none when there is no file."""
    return parse_operations(path.read_text(encoding="utf-8")) if path.exists() else []


def find(pending: Iterable[Operation], served: Sequence[Operation], method: str, path: str) -> Operation | None:
    """The listed operation that a request addresses, unless a built one is meant."""
    wanted = "GET" if method == "HEAD" else method
    for operation in pending:
        if operation.matches(wanted, path):
            if any(operation.shadows(built) and built.matches(wanted, path) for built in served):
                continue
            return operation
    return None
