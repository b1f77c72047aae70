"""Linter, formatter and type checker, as configured in the root pyproject.toml, refuse what they should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def run(*command: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=False)


def lint(text: str, name: str = "services/vcs/src/vcs_service/planted.py") -> str:
    done = run(
        str(BIN / "ruff"), "check", "--no-cache", "--output-format=concise", "--stdin-filename", name, "-", text=text
    )
    return done.stdout if done.returncode else ""


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("import os\n", "F401"),
        ("print('x')\n", "T201"),
        ("import datetime\n\nNOW = datetime.datetime.now()\n", "DTZ005"),
        ("import time\n\n\nasync def f() -> None:\n    time.sleep(1)\n", "ASYNC251"),
        ("x = '" + "a" * 120 + "'\n", "E501"),
    ],
)
def test_linter_refuses(text: str, rule: str) -> None:
    assert rule in lint(text)


def test_linter_lets_tools_print_and_leaves_generated_code() -> None:
    assert lint("print('x')\n", "tools/planted.py") == ""


def test_formatter_refuses_another_layout() -> None:
    command = [str(BIN / "ruff"), "format", "--no-cache", "--check", "--stdin-filename", "libs/planted.py", "-"]
    assert run(*command, text="x = 1\n").returncode == 0
    assert run(*command, text="x  =  1\n").returncode == 1


def test_type_checker_is_strict(tmp_path: Path) -> None:
    planted = tmp_path / "rules.py"
    planted.write_text("def untyped(x):\n    return x\n\n\ndef wrong() -> int:\n    return 'a'\n")
    done = run(str(BIN / "mypy"), "--cache-dir", str(tmp_path / "cache"), str(planted))
    assert done.returncode == 1
    assert "[no-untyped-def]" in done.stdout
    assert "[return-value]" in done.stdout
