"""Programs that the demo's tasks need, put where every sandbox can run them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from omoios_demo.errors import DemoError

OLDEST_PYTHON = (3, 11)


def prepare(folder: Path) -> Path:
    """Fill `folder` with `ruff` and a `python3` that a sandbox can start; returns it.

    As root sandboxes run as users who cannot enter a closed home folder: what lies there cannot be linked to, so that
    ruff, a single file, is copied, and of the machine's Pythons the first in open folders is taken. Raises DemoError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    ruff = shutil.which("ruff", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if ruff is None:
        raise DemoError("ruff was not found beside the interpreter; run `make install`")
    own = folder / "ruff"
    if not own.exists() or own.stat().st_size != Path(ruff).stat().st_size:
        fresh = folder / ".ruff"
        shutil.copyfile(ruff, fresh)
        fresh.chmod(0o755)
        fresh.replace(own)
    link = folder / "python3"
    link.unlink(missing_ok=True)
    link.symlink_to(python())
    return folder


def python() -> Path:
    """A Python that sandboxes can run, the system's own before others. Raises DemoError."""
    folders = ["/usr/bin", "/usr/local/bin", *os.environ.get("PATH", "").split(os.pathsep)]
    names = ["python3", "python3.14", "python3.13", "python3.12", "python3.11"]
    candidates = [Path(folder) / name for folder in folders if folder for name in names]
    for candidate in [*candidates, Path(sys.executable).resolve()]:
        if not candidate.exists():
            continue
        resolved = candidate.resolve()
        if (os.geteuid() != 0 or open_to_all(resolved)) and _version(resolved) >= OLDEST_PYTHON:
            return resolved
    wanted = ".".join(map(str, OLDEST_PYTHON))
    raise DemoError(
        f"the demo's tasks need Python {wanted} or newer where every user may run it (such as /usr/bin/python3); "
        "sandboxes of root run as other users"
    )


def open_to_all(path: Path) -> bool:
    """Whether every user can reach and run a program."""
    return bool(path.stat().st_mode & 0o001) and all(folder.stat().st_mode & 0o001 for folder in path.parents)


def _version(path: Path) -> tuple[int, ...]:
    try:
        done = subprocess.run(
            [str(path), "-I", "-S", "-c", "import sys; print(*sys.version_info[:2])"],
            capture_output=True,
            timeout=20,
            check=True,
        )
        return tuple(int(part) for part in done.stdout.split())
    except (OSError, ValueError, subprocess.SubprocessError):
        return (0,)
