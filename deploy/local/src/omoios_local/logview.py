"""Prints log files, with the part's name before each line when there are several."""

from __future__ import annotations

import contextlib
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

POLL_S = 0.2
CUT_BYTES = 600
# How the parts mark a line: services and Traefik (JSON), the runner and Python, PostgreSQL, NATS, Redis.
_PROBLEM = re.compile(
    rb'"level": ?"(?:warn|warning|error|critical|fatal|panic)"'
    rb"|\b(?:WARNING|ERROR|CRITICAL|FATAL|PANIC)\b|\[(?:WRN|ERR|FTL)\]|^\d+:[XCSM] .{20,30} # |^Traceback "
)
# Where a traceback or a statement goes on below the line that it belongs to.
_GOES_ON = re.compile(rb"\s+\S|[A-Za-z_][\w.]*(?:: |\s*$)|The above exception |During handling ")


def show(files: list[Path], lines: int, follow: bool) -> None:
    """Print the last `lines` of each file; with `follow` go on until interrupted, over rotations and new files."""
    width = max(len(file.stem) for file in files) if len(files) > 1 else 0
    positions: dict[Path, int] = {}
    for file in files:
        with file.open("rb") as handle:
            for line in deque(handle, lines):
                write(file, line, width)
            positions[file] = handle.tell()
    with contextlib.suppress(KeyboardInterrupt):
        while follow:
            for file in files:
                positions[file] = print_new(file, positions[file], width)
            time.sleep(POLL_S)


def show_problems(files: list[Path], lines: int) -> None:
    """Print the last `lines` warnings and errors of each file with their tracebacks, each line cut to CUT_BYTES."""
    width = max(len(file.stem) for file in files)
    for file in files:
        with file.open("rb") as handle:
            for line in deque(problems(handle), lines):
                write(file, line if len(line) <= CUT_BYTES else line[:CUT_BYTES] + b" ...", width)


def problems(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines that tell of a warning or an error, and those that belong to them."""
    inside = False
    for line in lines:
        inside = _PROBLEM.search(line) is not None or (inside and _GOES_ON.match(line) is not None)
        if inside:
            yield line


def print_new(file: Path, position: int, width: int) -> int:
    """Print what was written after `position`; returns the new position. A shorter file was rotated: from its start."""
    with contextlib.suppress(FileNotFoundError), file.open("rb") as handle:
        if handle.seek(0, 2) < position:
            position = 0
        handle.seek(position)
        for line in handle:
            if not line.endswith(b"\n"):
                break
            write(file, line, width)
            position += len(line)
    return position


def write(file: Path, line: bytes, width: int) -> None:
    text = line.decode(errors="replace").rstrip("\n")
    print(f"{file.stem:<{width}} | {text}" if width else text, flush=True)
