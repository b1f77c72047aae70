"""Compares the contract's operations with what the services declare and with the list of those still to come.

python -m tools.coverage            fails when an operation is neither served nor listed, is both, or the list grew
python -m tools.coverage update     takes operations that are served now off the list and lowers its ceiling

The list may only shrink: its first line holds a ceiling, and no line may be there that an earlier committed version did
not have.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Key = tuple[str, str]

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = Path("tests/contract/operations.txt")
PENDING = Path("tools/coverage/pending.txt")
OPENAPI = Path("gateway/openapi.json")
METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
CEILING = re.compile(r"^# ceiling: (\d+)$", re.MULTILINE)
PARAMETER = re.compile(r"\{[^/}]*\}")


def key_of(line: str) -> Key:
    """``GET /a/{b}`` → ``("GET", "/a/{}")``: what parameters are called does not matter."""
    method, path = line.split()
    return method, PARAMETER.sub("{}", path)


def lines_of(text: str) -> list[str]:
    """The operations of a list, without comments and empty lines."""
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def ceiling_of(text: str) -> int | None:
    """The number of lines that a list may have at most; None when it names none."""
    found = CEILING.search(text)
    return int(found.group(1)) if found else None


def served_of(document: str) -> set[Key]:
    """The operations of an OpenAPI document, given as text."""
    paths = json.loads(document).get("paths", {})
    return {key_of(f"{method.upper()} {path}") for path, item in paths.items() for method in item if method in METHODS}


@dataclass
class Comparison:
    """What is wrong, each as one sentence, and the counts."""

    total: int
    served: int
    pending: int
    problems: list[str] = field(default_factory=list)


def compare(contract: str, pending: str, served: Collection[Key], earlier: Iterable[str] = ()) -> Comparison:
    """Compares the texts of the contract and the list with what is served; ``earlier`` are committed lists."""
    operations = lines_of(contract)
    listed = lines_of(pending)
    listed_keys = {key_of(line) for line in listed}
    problems = []
    for line in operations:
        key = key_of(line)
        if key in served and key in listed_keys:
            problems.append(f"{line} is served and still listed; run: python -m tools.coverage update")
        elif key not in served and key not in listed_keys:
            problems.append(f"{line} is neither served nor listed in {PENDING}")
    known = {key_of(line) for line in operations}
    problems += [f"{line} is listed and no operation of the contract" for line in listed if key_of(line) not in known]
    problems += [f"{line} is listed twice" for line in sorted({line for line in listed if listed.count(line) > 1})]
    ceiling = ceiling_of(pending)
    if ceiling is None:
        problems.append(f"{PENDING} names no ceiling in its first line")
    elif len(listed) > ceiling:
        problems.append(f"{PENDING} has {len(listed)} lines, more than its ceiling of {ceiling}")
    returned: set[str] = set()
    for text in earlier:
        before = ceiling_of(text)
        if ceiling is not None and before is not None and ceiling > before:
            problems.append(f"the ceiling of {PENDING} was {before} and is {ceiling}; it may only fall")
        then = {key_of(line) for line in lines_of(text)}
        returned |= {line for line in listed if key_of(line) not in then}
    problems += [f"{line} came onto the list, which may only shrink" for line in sorted(returned)]
    return Comparison(
        total=len(operations),
        served=sum(key_of(line) in served for line in operations),
        pending=len(listed),
        problems=list(dict.fromkeys(problems)),
    )


def committed_versions(root: Path, path: Path = PENDING) -> list[str]:
    """Every committed text of a file up to HEAD, the newest first; none outside a git repository."""
    log = _git(root, "log", "--format=%H", "--", path.as_posix())
    texts = [_git(root, "show", f"{commit}:{path.as_posix()}") for commit in (log or "").split()]
    return [text for text in texts if text is not None]


def _git(root: Path, *arguments: str) -> str | None:
    # A clone that belongs to another user is refused unless it is named as safe.
    command = ["git", "-c", f"safe.directory={root}", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def updated(pending: str, served: Collection[Key]) -> str:
    """The list without what is served, its ceiling lowered to what is left."""
    kept = [
        line for line in pending.splitlines() if line.startswith("#") or (line.strip() and key_of(line) not in served)
    ]
    count = sum(not line.startswith("#") for line in kept)
    return CEILING.sub(f"# ceiling: {count}", "\n".join(kept)) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.coverage", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", nargs="?", default="check", choices=("check", "update"))
    parser.add_argument("--root", type=Path, default=ROOT)
    given = parser.parse_args(arguments)
    root: Path = given.root.resolve()
    served = served_of((root / OPENAPI).read_text(encoding="utf-8"))
    list_file = root / PENDING
    if given.action == "update":
        list_file.write_text(updated(list_file.read_text(encoding="utf-8"), served), encoding="utf-8")
    found = compare(
        (root / CONTRACT).read_text(encoding="utf-8"),
        list_file.read_text(encoding="utf-8"),
        served,
        committed_versions(root),
    )
    for problem in found.problems:
        print(problem, file=sys.stderr)
    missing = found.total - found.served - found.pending
    print(f"{found.total} operations: {found.served} served, {found.pending} pending, {max(0, missing)} missing")
    return int(bool(found.problems))


if __name__ == "__main__":
    sys.exit(main())
