"""Log rotation that needs no word from the writer: copy the file, then cut it to nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

MAX_BYTES = 16 * 1024 * 1024
KEEP = 3


def rotate(file: Path, max_bytes: int = MAX_BYTES, keep: int = KEEP) -> bool:
    """Move `file` to `file.1`, `file.1` to `file.2` and so on once it exceeds `max_bytes`; says whether it did.

    Writers append (O_APPEND), so they go on at the start of the emptied file. Lines written between the copy and the
    cut, a few milliseconds, can be lost.
    """
    if not file.exists() or file.stat().st_size <= max_bytes:
        return False
    for number in range(keep - 1, 0, -1):
        older = file.with_name(f"{file.name}.{number}")
        if older.exists():
            older.replace(file.with_name(f"{file.name}.{number + 1}"))
    shutil.copyfile(file, file.with_name(f"{file.name}.1"))
    with file.open("r+b") as handle:
        handle.truncate(0)
    return True


def rotate_all(folder: Path) -> None:
    for file in folder.glob("*.log"):
        rotate(file)
