"""What every check shares: a finding, the files of the tree, parsed Python."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

GENERATED = "libs/contracts/src/"


@dataclass(frozen=True, order=True)
class Finding:
    path: str
    line: int
    text: str
    warning: bool = False

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {'warning: ' if self.warning else ''}{self.text}"


def files(root: Path, *suffixes: str) -> list[Path]:
    """Files of the tree that git tracks or would add, with one of `suffixes` (all when none is given)."""
    listed = subprocess.run(
        # A clone that belongs to another user is refused unless it is named as safe.
        [
            "git",
            "-c",
            f"safe.directory={root.resolve()}",
            "-C",
            str(root),
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        raise RuntimeError(f"{root} is not a git work tree: {listed.stderr.strip()}")
    paths = (root / name for name in sorted(set(listed.stdout.split("\0"))) if name)
    return [path for path in paths if path.is_file() and (not suffixes or path.suffix in suffixes)]


def relative(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def dotted(node: ast.expr) -> str | None:
    """`a.b.c` of an attribute chain on a name; None for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else None
    return None


def imports(tree: ast.Module, package: str) -> Iterator[tuple[int, str, str | None]]:
    """(line, module, imported name or None) of every import; relative imports are resolved against `package`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, None
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parts = package.split(".")
                above = parts[: len(parts) - node.level + 1] if package else [""]
                module = ".".join([*above, module] if module else above)
            for alias in node.names:
                yield node.lineno, module, alias.name
