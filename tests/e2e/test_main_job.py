"""The main job: the demo, as a newcomer calls it, on a repository of his own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from omoios_local.state import repository_root
from tests.e2e.world import World, git

SMALL = """# Small change

## Requirements

### REQ-1: Says when
THE SYSTEM SHALL name a year.

## Tasks

### YEAR: Write the year
- Requirements: REQ-1
- Command: `echo 2026 > year.txt`

### CHECK: It is a number
- Depends: YEAR
- Type: run_tests
- Command: `grep -qE '^[0-9]+$' year.txt`
"""

FAILING = SMALL.replace("^[0-9]+$", "^[a-z]+$").replace("- Type: run_tests", "- Type: run_tests\n- Retries: 0")


@pytest.fixture(scope="module", autouse=True)
def _no_runner_of_the_demo_left(world: World) -> Iterator[None]:
    yield
    world.client.stop(["runner"])


@pytest.fixture(scope="module")
def own(world: World) -> Path:
    """A repository outside every folder that the service may read, with work that is not committed."""
    path = world.directory / "own"
    path.mkdir(mode=0o700)
    (path / "tool.py").write_text('"""A tool."""\n\n\ndef work() -> int:\n    """Work."""\n    return 1\n')
    git(path, "init", "--quiet", "--initial-branch=trunk")
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message", "Begin")
    (path / "tool.py").write_text('"""A tool, being changed."""\n')
    return path


def demo(*arguments: str, code: int = 0) -> str:
    """What the demo prints; its exit code must be `code`."""
    done = subprocess.run(
        [sys.executable, "-m", "omoios_demo", "--ceiling-s", "200", *arguments],
        env={**os.environ, "CI": "true", "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_demo_takes_a_repository_from_a_plan_to_merged_commits(world: World, own: Path) -> None:
    plan = repository_root() / "examples" / "repository-report.md"
    said = demo("--repo", str(own), "--plan", str(plan), "--push")
    assert "8 tasks done, 1 after a retry, 7 branches merged" in said
    assert "7 merged commits, each linked to its ticket" in said
    assert "critical path of 4: " in said
    assert "reservation settled" in said
    assert "0 dead letters, 0 unpublished outbox rows" in said
    # The branch is in the repository that was given; what lies in its checkout is as it was.
    assert git(own, "rev-parse", "--abbrev-ref", "HEAD").strip() == "trunk"
    assert git(own, "status", "--short").split() == ["M", "tool.py"]
    log = git(own, "log", "--first-parent", "--format=%s", "trunk..omoios/repository-report").splitlines()
    assert len(log) == 7
    report = git(own, "show", "omoios/repository-report:repository_report/REPORT.md")
    assert "- `tool.py`: work" in report


def test_the_demo_works_again_and_with_other_plans(world: World, own: Path, tmp_path: Path) -> None:
    plan = tmp_path / "small.md"
    plan.write_text(SMALL)
    said = demo("--repo", str(own), "--plan", str(plan))
    assert "signed in as" in said
    assert "2 tasks done, 0 after a retry, 1 branches merged" in said
    assert "omoios/small-change" not in git(own, "branch", "--list")
    # A check that fails is the end of it, and the demo says so.
    plan.write_text(FAILING)
    said = demo("--repo", str(own), "--plan", str(plan), code=1)
    assert "It is a number: failed after 1 attempt(s): Command failed with exit code 1" in said
    assert "logs: " in said
