"""Every advisory lock of the service has a purpose, and every purpose a class of its own."""

from __future__ import annotations

from pathlib import Path

import workflow_service
from workflow_service.locks.rules import LockClass, advisory_lock

KIT_CLASS = 0


def test_no_two_purposes_share_a_class() -> None:
    # A second name of one number would be an alias, which iteration leaves out.
    assert len(list(LockClass)) == len(LockClass.__members__)
    assert KIT_CLASS not in set(LockClass)
    assert len({advisory_lock(purpose, ":id") for purpose in LockClass}) == len(LockClass)


def test_no_lock_is_taken_beside_the_list() -> None:
    root = Path(workflow_service.__file__).parent
    sources = {path.relative_to(root).as_posix(): path.read_text("utf-8") for path in root.rglob("*.py")}
    assert [name for name, text in sources.items() if "pg_advisory" in text] == ["locks/rules.py"]
    used = {
        purpose
        for purpose in LockClass
        for text in sources.values()
        if f"advisory_lock(LockClass.{purpose.name}," in text
    }
    assert used == set(LockClass)
