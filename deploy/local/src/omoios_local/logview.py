"""Prints log files, with the part's name before each line when there are several."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from pathlib import Path

POLL_S = 0.2


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
