"""A git tree to plant violations in."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Plant = Callable[[Mapping[str, str]], Path]


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """`plant({"path": "text"})` writes the files below a fresh git work tree and returns its root."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)

    def write(tree: Mapping[str, str]) -> Path:
        for name, text in tree.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write
