"""`docs/reliability.md`: what is tried, how often, what holds, and what was found. Its layout depends on no timing."""

from __future__ import annotations

import json
from pathlib import Path

from omoios_local.state import repository_root
from tests.faults.checker import PROMISES
from tests.faults.findings import FINDINGS
from tests.faults.run import Case
from tests.faults.scenarios import SCENARIOS

PAGE = repository_root() / "docs" / "reliability.md"
RESULT = "result.json"


def save(folder: Path, scenario: str, cases: list[Case]) -> None:
    """Keep the results of a scenario until it is tried again."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = [{"name": case.name, "problems": case.problems, "skipped": case.skipped} for case in cases]
    (folder / f"{scenario}.{RESULT}").write_text(json.dumps(kept, indent=1))


def saved(folder: Path) -> list[Case]:
    """The results of the latest run of every scenario that was tried here."""
    return [
        Case(scenario.name, **row)
        for scenario in SCENARIOS
        if (file := folder / f"{scenario.name}.{RESULT}").exists()
        for row in json.loads(file.read_text())
    ]


def render(cases: list[Case]) -> str:
    """The page of the latest run of every scenario."""
    lines = [
        "# Reliability: what was tried, and what held",
        "",
        "Written by `make faults report=1`; do not edit by hand. All scenarios take less than ten minutes on two",
        "quiet cores; `make faults` prints every case with seed and times, and names what it leaves out on a slower",
        "machine, where it begins nothing after nine minutes (`whole=1` does).",
        "",
        "One embedded stack stands under one steady load through the gateway: three organizations create projects,",
        "tickets, tasks and specs, move tickets, begin executions (so reserve budgets), claim tasks, report sandbox",
        "events and usage, complete tasks, and read the WebSocket; a prober reads from every service. Each operation",
        "is recorded as acknowledged, refused or unknown. After each scenario the load is held, the stack comes to",
        "rest, and one checker compares the history with the six databases, JetStream and the public API.",
        "",
        "## Scenarios",
        "",
        "| Scenario | Tried | Must hold | How often | With `long=1` | Last run |",
        "|---|---|---|---|---|---|",
    ]
    for scenario in SCENARIOS:
        ours = [case for case in cases if case.scenario == scenario.name]
        often, longer = scenario.times
        lines.append(
            f"| {scenario.name} | {scenario.tried} | {scenario.holds} | {often} | {longer} | {_result(ours)} |"
        )
    lines += ["", "## What the checker proves after each scenario", "", "| Promise | |", "|---|---|"]
    lines += [f"| {name} | {(promise.__doc__ or '').splitlines()[0]} |" for name, promise in PROMISES.items()]
    lines += [
        "",
        "Its own tests plant each violation and see it found: `tests/faults/tests/unit/test_checker.py`.",
        "",
        "## What runs found",
        "",
    ]
    if FINDINGS:
        lines += ["| Scenario | Found | Mended |", "|---|---|---|"]
        lines += [f"| {item.by} | {item.found} | {item.mended} |" for item in FINDINGS]
    else:
        lines.append("Nothing that had to be mended in the product.")
    return "\n".join(lines) + "\n"


def _result(cases: list[Case]) -> str:
    if not cases:
        return "not run yet"
    failed = [case.name for case in cases if case.problems]
    skipped = [case.name for case in cases if case.skipped]
    passed = len(cases) - len(failed) - len(skipped)
    text = f"{passed} of {len(cases)} cases passed"
    if failed:
        text += f"; failed: {', '.join(failed)}"
    return text + (f"; skipped: {', '.join(skipped)}" if skipped else "")


def write(folder: Path, page: Path = PAGE) -> None:
    """Write the page from the saved results."""
    page.write_text(render(saved(folder)))
