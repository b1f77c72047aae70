"""Budget, marks, hosts, links and dependencies: each planted once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tools import run_checks
from tools.checks import dependencies, file_budget, hosts, links, marks

Plant = Callable[[Mapping[str, str]], Path]


def test_file_budget_warns_over_300_and_fails_over_500(plant: Plant) -> None:
    root = plant(
        {
            "libs/a/src/a/fine.py": "x = 1\n" * 300,
            "libs/a/src/a/long.py": "x = 1\n" * 301,
            "libs/a/src/a/over.py": "x = 1\n" * 501,
            "libs/contracts/src/omoios/generated_pb2.py": "x = 1\n" * 900,
            "services/a/migrations/versions/one.py": "x = 1\n" * 900,
        }
    )
    found = {finding.path: finding.warning for finding in file_budget.check(root)}
    assert found == {"libs/a/src/a/long.py": True, "libs/a/src/a/over.py": False}


def test_warnings_alone_do_not_fail(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    root = plant({"a/long.py": "x = 1\n" * 301})
    assert run_checks.run_tree("file_budget", root) == 0
    plant({"a/over.py": "x = 1\n" * 501})
    assert run_checks.run_tree("file_budget", root) == 1
    assert "a/over.py:501" in capsys.readouterr().out


@pytest.mark.parametrize("mark", ["".join(parts) for parts in (("TO", "DO"), ("FIX", "ME"), ("XX", "X"))])
def test_naked_marks_are_found(plant: Plant, mark: str) -> None:
    root = plant(
        {"a.py": f"# {mark}: later\n# {mark}(#12): later\n", "Makefile": f"# {mark}\n", "b.py": f"{mark}S = 1\n"}
    )
    assert [(finding.path, finding.line) for finding in marks.check(root)] == [("Makefile", 1), ("a.py", 1)]


def test_missing_methods_are_found(plant: Plant) -> None:
    root = plant({"a.py": f"def f():\n    raise {'Not'}ImplementedError\n"})
    assert [finding.line for finding in marks.check(root)] == [2]


def test_registry_hosts_are_found(plant: Plant) -> None:
    for host in hosts.REGISTRIES:
        root = plant({"requirements.txt": f"one\n--index-url https://{host}/simple\n"})
        assert [(finding.path, finding.line) for finding in hosts.check(root)] == [("requirements.txt", 2)], host


PLACES = [
    "/".join(parts)
    for parts in (("", "work", "main"), ("", "home", "jane", "x"), ("", "root", ".x"), ("", "Users", "jane"))
]


@pytest.mark.parametrize("path", PLACES)
def test_machine_paths_are_found(plant: Plant, path: str) -> None:
    root = plant({"a.md": f"see {path}/x\n", "b.md": "see ~/x and ./work/x and docs/work/x and /home/omoios/x\n"})
    assert [finding.path for finding in hosts.check(root)] == ["a.md"]


def test_the_folder_of_the_clone_and_locks_with_hosts_are_found(plant: Plant) -> None:
    root = plant({"uv.lock": "", "a.txt": ""})
    plant({"a.txt": f"root = {root}\n"})
    assert [finding.path for finding in hosts.check(root)] == ["a.txt", "uv.lock"]


def test_dead_links_are_found(plant: Plant) -> None:
    root = plant(
        {"README.md": "[a](docs/a.md) [b](docs/b.md#part) [c](https://example.org) [d](#part)\n", "docs/a.md": ""}
    )
    assert [finding.text for finding in links.check(root)] == ["link to docs/b.md, which is not there"]


def _package(name: str, *declared: str) -> str:
    return f'[project]\nname = "{name}"\nversion = "1"\ndependencies = {list(declared)!r}\n'


def test_dependencies_are_what_is_imported(plant: Plant) -> None:
    root = plant(
        {
            "libs/kit/pyproject.toml": _package("omoios-kit", "httpx2"),
            "libs/kit/src/kit/a.py": "import httpx2\nimport json\nfrom . import b\n",
            "services/one/pyproject.toml": _package("omoios-one", "omoios-kit", "orjson", "omoios-two"),
            "services/one/src/one_service/a.py": "import kit.a\nimport msgspec\nfrom google.protobuf import message\n",
            "services/two/pyproject.toml": _package("omoios-two"),
            "services/two/src/two_service/a.py": "",
        }
    )
    plant({"services/one/src/one_service/b.py": "import two_service\n"})
    assert [finding.text for finding in dependencies.check(root)] == [
        "omoios-one imports msgspec (services/one/src/one_service/a.py:2) and does not declare it",
        "omoios-one imports protobuf (services/one/src/one_service/a.py:3) and does not declare it",
        "omoios-one declares orjson and never imports it",
        "a service never depends on another: omoios-two",
    ]


def test_dependencies_are_mended(plant: Plant) -> None:
    start = '[project]\nname = "omoios-kit"\nversion = "1"\ndependencies = [\n    "orjson",\n]\n\n[tool.x]\ny = 1\n'
    root = plant({"libs/kit/pyproject.toml": start, "libs/kit/src/kit/a.py": "import sqlalchemy\nimport httpx2\n"})
    assert dependencies.mend(root) == 3
    assert dependencies.check(root) == []
    assert (root / "libs/kit/pyproject.toml").read_text() == start.replace(
        '    "orjson",\n', '    "httpx2",\n    "sqlalchemy[asyncio]>=2.1",\n'
    )


def test_this_repository_has_a_target_for_each_check() -> None:
    names = [check.name for check in run_checks.CHECKS]
    assert len(names) == len(set(names))
    assert {"rooms", "file-budget", "marks", "hosts", "dependencies", "links"} <= set(names)


def test_a_failing_check_fails_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    good = run_checks.Check("good", ("true",), "passes")
    bad = run_checks.Check("bad", ("sh", "-c", "echo the reason; exit 3"), "fails")
    assert run_checks.run_all([good]) == 0
    assert run_checks.run_all([good, bad]) == 1
    out = capsys.readouterr().out
    assert "the reason" in out
    assert "1 checks passed, 1 failed: bad" in out
