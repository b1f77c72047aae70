"""Every test file has one phase, and the sum counts what pytest counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tools import run_tests
from tools.run_tests import Phase, Sum

Plant = Callable[[Mapping[str, str]], Path]
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("path", "phase"),
    [
        ("tools/tests/test_a.py", "unit"),
        ("libs/servicekit/tests/unit/test_a.py", "unit"),
        ("libs/servicekit/tests/events/test_a.py", "integration"),
        ("services/vcs/tests/unit/merging/test_a.py", "unit"),
        ("services/vcs/tests/integration/test_a.py", "integration"),
        ("deploy/local/tests/test_a.py", "integration"),
        ("gateway/tests/test_a.py", "gateway"),
        ("gateway/edge/tests/unit/test_a.py", "gateway"),
        ("tests/contract/test_a.py", "contract"),
        ("tests/e2e/test_a.py", "e2e"),
        ("tests/faults/tests/unit/test_a.py", "unit"),
    ],
)
def test_place_decides_the_phase(path: str, phase: str) -> None:
    assert run_tests.phase_of(Path(path)) == phase


def test_every_test_file_of_this_tree_is_run() -> None:
    phases = {phase.name for phase in run_tests.PHASES}
    found = run_tests.test_files(ROOT)
    assert Path(__file__).relative_to(ROOT) in found
    assert {run_tests.phase_of(path) for path in found} <= phases


def test_sum_counts_passed_failed_skipped(plant: Plant) -> None:
    root = plant(
        {
            "pytest.ini": "[pytest]\n",
            "test_one.py": (
                "import pytest\n"
                "def test_good(): pass\n"
                "def test_bad(): assert False\n"
                "@pytest.mark.skip(reason='planted')\ndef test_skipped(): pass\n"
                "@pytest.fixture\ndef broken(): raise ValueError\n"
                "def test_error(broken): pass\n"
            ),
        }
    )
    code, total = run_tests.run_phase(Phase("planted", 0, 30), [Path("test_one.py")], [], root)
    assert code == 1
    assert total == Sum(passed=1, failed=2, skipped=1)
    assert str(total) == "1 passed, 2 failed, 1 skipped"


def test_collection_error_counts_as_failure(plant: Plant) -> None:
    root = plant({"pytest.ini": "[pytest]\n", "test_one.py": "import nothing_of_this_name\n"})
    code, total = run_tests.run_phase(Phase("planted", 0, 30), [Path("test_one.py")], [], root)
    assert code != 0
    assert total.failed == 1
    assert total.passed == 0


def test_empty_selection_is_no_failure_but_an_empty_phase_is(plant: Plant) -> None:
    root = plant({"pytest.ini": "[pytest]\n", "test_one.py": "def test_a(): pass\n", "test_none.py": ""})
    phase = Phase("planted", 0, 30)
    assert run_tests.run_phase(phase, [Path("test_one.py")], ["-k", "zzz"], root) == (0, Sum())
    code, total = run_tests.run_phase(phase, [Path("test_none.py")], [], root)
    assert (code, total.failed) == (run_tests.NO_TESTS, 1)
