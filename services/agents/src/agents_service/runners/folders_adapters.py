"""The runner's folder on disk, and what dead runners left in it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from pathlib import Path

PR_SET_DUMPABLE = 4


def own_folder(workdir: Path) -> None:
    """Make the folder passable for sandboxes' users, and readable for none of them."""
    workdir.mkdir(parents=True, exist_ok=True)
    workdir.chmod(0o711)


def clear_abandoned(workdir: Path) -> int:
    """Remove folders (`<pid>-<sandbox>`) of runners that are gone; returns how many."""
    removed = 0
    for folder in workdir.iterdir():
        pid, _, rest = folder.name.partition("-")
        if pid.isdigit() and rest and not _lives(int(pid)):
            remove(folder)
            removed += 1
    return removed


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, also where commands took their own rights away, as Go's cache does."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        return
    for above, names, _ in os.walk(folder, followlinks=False):
        for path in (os.path.join(above, name) for name in names):
            if not os.path.islink(path):
                with contextlib.suppress(OSError):
                    os.chmod(path, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def hide_environment() -> None:
    """Keep this process' memory and environment from other processes of the same user, where the kernel can."""
    try:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    except (OSError, AttributeError):
        return


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
