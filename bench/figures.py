"""Figures, their targets, and how they are printed and kept."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

BASELINE = Path(__file__).parent / "baseline.json"


@dataclass(frozen=True)
class Target:
    """What a figure is to reach. An asserted one that is missed fails the run; others are reported."""

    limit: float
    kind: Literal["at most", "at least"]
    asserted: bool = False

    def met(self, value: float) -> bool:
        return value <= self.limit if self.kind == "at most" else value >= self.limit

    def __str__(self) -> str:
        return f"{'≤' if self.kind == 'at most' else '≥'} {number(self.limit)}"


@dataclass(frozen=True)
class Figure:
    """One measured value. `note`: what else was seen."""

    group: str
    name: str
    value: float
    unit: str
    target: Target | None = None
    note: str = ""

    @property
    def key(self) -> str:
        return f"{self.group}: {self.name}"

    @property
    def met(self) -> bool | None:
        return None if self.target is None else self.target.met(self.value)

    @property
    def failed(self) -> bool:
        return self.target is not None and self.target.asserted and not self.met


def at_most(limit: float, *, asserted: bool = False) -> Target:
    return Target(limit, "at most", asserted)


def at_least(limit: float, *, asserted: bool = False) -> Target:
    return Target(limit, "at least", asserted)


def number(value: float) -> str:
    """A number with as many digits as mean something."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(found: Sequence[Figure], baseline: dict[str, float]) -> str:
    """The figures in groups, with the recorded value beside each."""
    lines = [f"{'':52}{'measured':>12} {'':<12}{'recorded':>10}   target"]
    group = ""
    for figure in found:
        if figure.group != group:
            group = figure.group
            lines += ["", group]
        known = baseline.get(figure.key)
        target = ""
        if figure.target is not None:
            verdict = "met" if figure.met else "FAILED" if figure.target.asserted else "not met"
            target = f"{figure.target!s:<10} {verdict}"
        recorded = "" if known is None else number(known)
        measured = f"  {figure.name:<50}{number(figure.value):>12} {figure.unit:<12}"
        lines.append(f"{measured}{recorded:>10}   {target:<20} {figure.note}".rstrip())
    return "\n".join(lines)


def read_baseline() -> dict[str, float]:
    """The recorded values by key; empty without a record."""
    if not BASELINE.exists():
        return {}
    document = json.loads(BASELINE.read_text())
    return {key: float(entry["value"]) for key, entry in document["figures"].items()}


def record(found: Sequence[Figure]) -> None:
    """Keep these figures as the ones to compare with. A part of them replaces that part only."""
    document: dict[str, Any] = {"figures": {}}
    if BASELINE.exists():
        document = json.loads(BASELINE.read_text())
    document["recorded"] = datetime.now(UTC).date().isoformat()
    document["machine"] = {"processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version()}
    document["figures"] |= {figure.key: {"value": round(figure.value, 3), "unit": figure.unit} for figure in found}
    BASELINE.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
