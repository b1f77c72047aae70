"""Runs the tests in the order unit, integration, gateway, contract, end to end, and sums up.

    python -m tools.run_tests                       everything
    python -m tools.run_tests unit gateway          the named phases
    python -m tools.run_tests unit -- -k outbox -x  arguments after -- go to pytest

Each phase is one pytest run, so that a part which needs the machine for itself has it. A JUnit file per phase is
written to `build/junit`. The last line is the sum: `N passed, N failed` (and skipped, where there are any).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "build" / "junit"
NO_TESTS = 5  # pytest's exit code for an empty selection.


@dataclass(frozen=True)
class Phase:
    name: str
    workers: int  # Processes of pytest-xdist; 0 runs the phase in one process.
    timeout_s: int  # Limit of one test.
    distribution: str = "worksteal"  # How they share the tests out.


PHASES = (
    Phase("unit", 2, 30),
    Phase("integration", 2, 120),
    Phase("gateway", 2, 120),
    Phase("contract", 2, 300),
    Phase("e2e", 2, 600, "loadscope"),
)


@dataclass
class Sum:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, other: Sum) -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed" + (f", {self.skipped} skipped" if self.skipped else "")


def phase_of(path: Path) -> str:
    """The phase that a test file belongs to, from its place in the tree."""
    parts = path.parts
    if parts[0] == "tests" and parts[1] in {"contract", "e2e"}:
        return parts[1]
    if parts[0] == "gateway":
        return "gateway"
    return "unit" if parts[0] == "tools" or "unit" in parts else "integration"


def test_files(root: Path) -> list[Path]:
    found = [
        path.relative_to(root)
        for top in ("tools", "libs", "services", "deploy", "gateway", "tests")
        for path in (root / top).rglob("test_*.py")
    ]
    hidden = {".venv", "node_modules", "__pycache__", "src"}
    return sorted(path for path in found if not hidden & set(path.parts))


def read_report(report: Path) -> Sum:
    """Counts of a JUnit file; errors in set-up and collection count as failures."""
    total = Sum()
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        tests, failures, errors, skipped = (
            int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")
        )
        total.add(Sum(tests - failures - errors - skipped, failures + errors, skipped))
    return total


def run_phase(phase: Phase, files: Sequence[Path], extra: Sequence[str], root: Path = ROOT) -> tuple[int, Sum]:
    """Run one phase; returns pytest's exit code (0 when a selection by `extra` left nothing) and its counts."""
    reports = root / REPORTS.relative_to(ROOT)
    reports.mkdir(parents=True, exist_ok=True)
    report = reports / f"{phase.name}.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", f"--junitxml={report}", f"--timeout={phase.timeout_s}", "--durations=5"]
    if phase.workers and len(files) > 1:
        command += ["-n", str(phase.workers), "--dist", phase.distribution]
    done = subprocess.run(
        [*command, "-q", *map(str, files), *extra], cwd=root, check=False, env={**os.environ, "OMOIOS_ENV": "test"}
    )
    if report.exists():
        total = read_report(report)
        if done.returncode == NO_TESTS and extra:
            return 0, total
        if done.returncode and not total.failed:
            total.failed = 1
        return done.returncode, total
    return done.returncode or 1, Sum(failed=1)


def main(argv: Sequence[str]) -> int:
    arguments = list(argv)
    extra = arguments[arguments.index("--") + 1 :] if "--" in arguments else []
    names = arguments[: arguments.index("--")] if "--" in arguments else arguments
    unknown = set(names) - {phase.name for phase in PHASES}
    if unknown:
        print(
            f"no such phase: {', '.join(sorted(unknown))}; there are {', '.join(p.name for p in PHASES)}",
            file=sys.stderr,
        )
        return 2
    by_phase: dict[str, list[Path]] = {}
    for path in test_files(ROOT):
        by_phase.setdefault(phase_of(path), []).append(path)
    lines, total, worst = [], Sum(), 0
    for phase in PHASES:
        files = by_phase.get(phase.name, [])
        if names and phase.name not in names:
            continue
        if not files:
            lines.append(f"{phase.name:<12} no tests yet")
            continue
        print(f"== {phase.name}: {len(files)} files", flush=True)
        started = time.monotonic()
        code, counts = run_phase(phase, files, extra)
        worst = worst or code
        total.add(counts)
        lines.append(f"{phase.name:<12} {counts} in {time.monotonic() - started:.0f} s")
    print("\n".join(["==", *lines]))
    print(total, flush=True)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
