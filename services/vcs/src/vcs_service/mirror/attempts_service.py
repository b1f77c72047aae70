"""Branches of task attempts, for the rooms above: each function joins the caller's transaction."""

from __future__ import annotations

from typing import Any

from servicekit.db import Tx
from vcs_service import events
from vcs_service.mirror import store
from vcs_service.mirror.tables import Branch


async def open_attempt(tx: Tx, **values: Any) -> Branch | None:
    """The branch of an attempt, new or as it was made before; None when a later attempt has one."""
    task_id, attempt = values["task_id"], values["attempt"]
    if await store.latest_attempt(tx, task_id) > attempt:
        return None
    branch = await store.add_branch(tx, **values)
    if branch is None:
        return await store.find_branch(tx, task_id, attempt)
    events.branch_started(tx, branch)
    return branch


async def find(tx: Tx, task_id: str, attempt: int) -> tuple[Branch | None, bool]:
    """(the branch of an attempt, whether a later attempt has one)."""
    branch = await store.find_branch(tx, task_id, attempt)
    return branch, await store.latest_attempt(tx, task_id) > attempt


async def find_named(tx: Tx, ticket_id: str, branch: str) -> Branch | None:
    """The attempt at a task of the ticket whose branch has that name."""
    return await store.find_branch_named(tx, ticket_id, branch)


async def finish(tx: Tx, branch: Branch, head_sha: str) -> bool:
    """Notes where the attempt's work ended; False when that was noted before."""
    locked = await store.find_branch(tx, branch.task_id, branch.attempt, lock=True)
    if locked is None or locked.state != "started":
        return False
    await store.finish_branch(tx, branch.task_id, branch.attempt, head_sha)
    events.branch_finished(tx, branch, head_sha)
    return True


async def mark(tx: Tx, task_id: str, attempt: int, state: str) -> None:
    """Notes what came of the branch: merged or conflicted."""
    await store.set_branch_state(tx, task_id, attempt, state)
