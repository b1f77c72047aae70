"""The list of unbuilt operations: complete, exact, and only ever shorter."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tools.coverage.check import CONTRACT, OPENAPI, PENDING, compare, key_of, main, updated

OPERATIONS = "GET /a\nGET /a/{id}\nPOST /a\n"
LISTED = "# ceiling: 2\nGET /a/{id}\nPOST /a\n"
SERVED = {key_of("GET /a")}


def problems(pending: str = LISTED, served: set[tuple[str, str]] | None = None, *earlier: str) -> str:
    return "\n".join(compare(OPERATIONS, pending, SERVED if served is None else served, earlier).problems)


def test_served_and_listed_make_the_contract() -> None:
    assert problems() == ""
    found = compare(OPERATIONS, LISTED, SERVED)
    assert (found.total, found.served, found.pending) == (3, 1, 2)


def test_the_names_of_parameters_do_not_matter() -> None:
    assert problems("# ceiling: 1\nPOST /a\n", SERVED | {key_of("GET /a/{other}")}) == ""


def test_an_operation_of_nobody_fails() -> None:
    assert "GET /a is neither served nor listed" in problems(served=set())


def test_an_operation_that_is_both_fails() -> None:
    assert "POST /a is served and still listed" in problems(served=SERVED | {key_of("POST /a")})


def test_a_line_that_is_no_operation_fails() -> None:
    assert "GET /b is listed and no operation" in problems("# ceiling: 3\nGET /a/{id}\nPOST /a\nGET /b\n")


def test_a_line_twice_fails() -> None:
    assert "POST /a is listed twice" in problems("# ceiling: 3\nGET /a/{id}\nPOST /a\nPOST /a\n")


def test_more_lines_than_the_ceiling_fail() -> None:
    assert "more than its ceiling of 1" in problems("# ceiling: 1\nGET /a/{id}\nPOST /a\n")
    assert "names no ceiling" in problems("GET /a/{id}\nPOST /a\n")


def test_a_line_that_came_back_fails() -> None:
    assert "GET /a/{id} came onto the list" in problems(LISTED, None, "# ceiling: 2\nPOST /a\nGET /x\n")
    assert problems(LISTED, None, LISTED, "# ceiling: 3\nGET /a\nGET /a/{id}\nPOST /a\n") == ""


def test_a_ceiling_that_rose_fails() -> None:
    assert "was 2 and is 3; it may only fall" in problems(LISTED.replace("2", "3"), None, LISTED)


def test_update_takes_served_lines_off_and_lowers_the_ceiling() -> None:
    text = "# ceiling: 2\n# a comment\nGET /a/{id}\nPOST /a\n"
    assert updated(text, {key_of("POST /a")}) == "# ceiling: 1\n# a comment\nGET /a/{id}\n"
    assert updated(text, set()) == text


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    files = {
        CONTRACT: OPERATIONS,
        PENDING: LISTED,
        OPENAPI: json.dumps({"paths": {"/a": {"get": {}, "parameters": []}}}),
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def commit(repository: Path) -> None:
    git = ["git", "-C", str(repository), "-c", "user.name=t", "-c", "user.email=t@example.com"]
    if not (repository / ".git").exists():
        subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)


def declare(repository: Path, *operations: str) -> None:
    """Writes an OpenAPI document with these operations."""
    paths: dict[str, dict[str, object]] = {}
    for operation in operations:
        method, path = operation.split()
        paths.setdefault(path, {})[method.lower()] = {}
    (repository / OPENAPI).write_text(json.dumps({"paths": paths}))


def test_the_history_of_a_repository_decides(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--root", str(repository)]
    assert main(["check", *arguments]) == 0
    commit(repository)
    declare(repository, "GET /a", "POST /a")
    assert main(["check", *arguments]) == 1
    assert main(["update", *arguments]) == 0
    assert (repository / PENDING).read_text() == "# ceiling: 1\nGET /a/{id}\n"
    commit(repository)
    # An operation stops being served and is put back, with its ceiling, in a commit of its own.
    declare(repository, "GET /a")
    (repository / PENDING).write_text(LISTED)
    commit(repository)
    capsys.readouterr()
    assert main(["check", *arguments]) == 1
    said = capsys.readouterr().err
    assert "POST /a came onto the list" in said
    assert "the ceiling of tools/coverage/pending.txt was 1 and is 2" in said


def test_without_a_repository_the_ceiling_holds(repository: Path) -> None:
    (repository / CONTRACT).write_text(OPERATIONS + "GET /c\n")
    (repository / PENDING).write_text(LISTED + "GET /c\n")
    assert main(["check", "--root", str(repository)]) == 1
