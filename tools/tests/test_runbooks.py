"""Commands of the runbooks exist: targets, the variables that they take, and Python modules."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
RECIPES = {
    found[1]: found[2]
    for found in re.finditer(
        r"^([a-z][a-z-]*):(?!=)[^\n]*\n((?:\t[^\n]*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
}
# The target, and what follows it up to the end of the command: variables, whose values may be quoted.
COMMAND = re.compile(r"(?:^|[`\s])make ([a-z][a-z-]*)((?: [a-z]+=(?:'[^']*'|[^\s`]+))*)", re.MULTILINE)
MODULE = re.compile(r"python -m ([a-z_.]+)")


def code_of(page: Path) -> str:
    """What a page shows as code: blocks and what stands between backticks, a line each."""
    text = page.read_text()
    return "\n".join(block or inline for block, inline in re.findall(r"```\n(.*?)```|`([^`\n]+)`", text, re.DOTALL))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_targets_and_their_variables_exist(page: Path) -> None:
    for target, given in COMMAND.findall(code_of(page)):
        assert target in RECIPES, f"make {target}"
        for variable in re.findall(r" ([a-z]+)=", re.sub(r"'[^']*'", "", given)):
            assert re.search(rf"\b{variable}\b", RECIPES[target]), f"make {target} takes no {variable}="


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_modules_exist(page: Path) -> None:
    for module in MODULE.findall(code_of(page)):
        found = find_spec(module)
        assert found is not None, module
        if found.submodule_search_locations is not None:
            assert find_spec(f"{module}.__main__") is not None, f"{module} cannot be run"


def test_commands_are_found_at_all() -> None:
    code = "\n".join(map(code_of, PAGES))
    assert {"status", "restart", "dlq-replay", "rotate-keys", "restore"} <= {name for name, _ in COMMAND.findall(code)}
    assert {"servicekit.events.dlq", "identity_service.admin"} <= set(MODULE.findall(code))
