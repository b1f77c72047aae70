"""What `.ci/run` prints when a step fails: enough to see why, from its output alone, and not more."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Stands for make in a tree without a product: notes what it was asked for, and fails where FAILS is among that.
MAKE = """#!/bin/bash
echo "$*${OMOIOS_STATE_DIR:+ in $OMOIOS_STATE_DIR}" >> calls
case "$*" in
    *status*) for n in $(seq 500); do echo "status $n"; done; exit 3 ;;
    *logs*) for n in $(seq 500); do echo "problem $n"; done ;;
    faults*) echo '1 passed, 0 failed' ;;
    test) mkdir -p "$OMOIOS_E2E_KEEP_LOGS/stack-1/logs"; echo '5 passed, 0 failed' ;;
esac
case "$*" in *"$FAILS"*) exit 1 ;; esac
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with `.ci/run`, and a folder of programs that stand for those that would change the machine."""
    (tmp_path / ".ci").mkdir()
    shutil.copy2(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    (tmp_path / "deploy/local/src/omoios_demo").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    for name, text in (("make", MAKE), ("apt-get", "#!/bin/bash\nexit 1\n"), ("useradd", "#!/bin/bash\nexit 1\n")):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def run(tree: Path, fails: str) -> tuple[int, list[str]]:
    environment = os.environ | {"PATH": f"{tree / 'bin'}:{os.environ['PATH']}", "FAILS": fails}
    environment.pop("OMOIOS_STATE_DIR", None)
    done = subprocess.run(
        [tree / ".ci" / "run"], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout.splitlines()


def calls(tree: Path) -> list[str]:
    return (tree / "calls").read_text().splitlines()


def test_a_failed_demo_shows_its_stack_before_it_is_deleted(tree: Path) -> None:
    code, said = run(tree, "demo")
    assert code == 1
    asked = [line.split()[2] for line in calls(tree) if line.startswith(f"-C {tree} ")]
    assert asked == ["demo", "status", "logs", "down", "reset"]
    assert f"-C {tree} logs args=--problems --lines 6" in calls(tree)
    shown = [line for line in said if line.startswith(("status ", "problem "))]
    assert len(shown) <= 150
    assert {"status 500", "problem 500"} <= set(shown)
    assert said[-2:] == [".ci/run failed with exit code 1", "6 passed, 0 failed"]


def test_a_failed_test_shows_the_logs_of_the_stacks_that_tests_used(tree: Path) -> None:
    code, said = run(tree, "test")
    assert code == 1
    assert calls(tree)[-1] == f"logs args=--problems --lines 4 in {tree}/build/e2e/stack-1"
    assert "problem 500" in said
    assert len([line for line in said if line.startswith("problem ")]) <= 60
