"""Locks that a dead git left behind are removed, and no others."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vcs_service.mirror import locks_adapters as locks


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """A lock in a repository, ten minutes old."""
    found = tmp_path / "project-1.git" / "refs" / "heads" / "main.lock"
    found.parent.mkdir(parents=True)
    _make(found, age_s=600)
    return found


def _make(lock: Path, age_s: float = 0.0) -> None:
    lock.touch(exist_ok=False)
    made = lock.stat().st_mtime - age_s
    os.utime(lock, (made, made))


def _clear(lock: Path) -> bool:
    return locks.clear_stale(lock.parents[2], f"fatal: Unable to create '{lock}': File exists.")


def test_an_old_lock_goes_and_a_new_one_stays(lock: Path, tmp_path: Path) -> None:
    assert _clear(lock)
    assert not lock.exists()
    assert _clear(lock), "a lock that is gone by now is no reason to give up"
    _make(lock, age_s=locks.STALE_LOCK_S / 2)
    assert not _clear(lock)
    assert lock.exists()
    outside = tmp_path / "other.lock"
    _make(outside, age_s=600)
    assert not locks.clear_stale(lock.parents[2], f"Unable to create '{outside}': File exists")
    assert not locks.clear_stale(lock.parents[2], "fatal: something else")
    assert outside.exists()


def test_a_wrong_clock_of_the_process_makes_no_lock_old(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock.unlink()
    _make(lock)
    monkeypatch.setattr("time.time", lambda: lock.stat().st_mtime + 300)
    assert not _clear(lock)
    assert lock.exists()


def test_two_at_one_instant_leave_the_lock_that_is_made_in_between(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is held between its look and its removal while the second one, and a git after it, go on."""
    second = threading.Thread(target=_clear, args=(lock,))
    unlink = Path.unlink
    between: list[Path] = []

    def held(path: Path, missing_ok: bool = False) -> None:
        if path == lock and threading.current_thread() is threading.main_thread():
            second.start()
            second.join(0.5)
            if not lock.exists():
                _make(lock)
                between.append(lock)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", held)
    assert _clear(lock)
    if not between:
        _make(lock)
    second.join()
    assert lock.exists()


def test_who_removes_a_lock_in_another_process_is_waited_for_and_not_for_ever(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holding = (
        "import fcntl, os, sys; guard = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); "
        "fcntl.flock(guard, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holding, str(lock.parents[2] / locks.GUARD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"held\n"
        monkeypatch.setattr(locks, "GUARD_WAIT_S", 0.1)
        assert not _clear(lock)
        assert lock.exists()
        other.stdin.close()
        other.wait()
    assert _clear(lock)
    assert not lock.exists()
