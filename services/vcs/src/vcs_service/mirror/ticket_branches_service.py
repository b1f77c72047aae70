"""Branches of tickets, for the rooms above: each function joins the caller's transaction."""

from __future__ import annotations

from typing import Any

from servicekit.db import Tx
from vcs_service.mirror import ticket_branches_store as store
from vcs_service.mirror.tables import TicketBranch

MERGED = "merged"


async def open_branch(tx: Tx, **values: Any) -> TicketBranch:
    """The branch of a ticket, new or as it was made before."""
    added = await store.add(tx, **values)
    found = added or await store.find(tx, values["ticket_id"])
    assert found is not None
    return found


async def reopen(tx: Tx, ticket_id: str, base_sha: str) -> TicketBranch:
    """Begins a merged branch anew from `base_sha`."""
    await store.change(tx, ticket_id, state="open", base_sha=base_sha, head_sha=None, merge_sha=None)
    found = await store.find(tx, ticket_id)
    assert found is not None
    return found


async def find(tx: Tx, ticket_id: str, *, lock: bool = False) -> TicketBranch | None:
    """The branch of a ticket."""
    return await store.find(tx, ticket_id, lock=lock)


async def finish(tx: Tx, ticket_id: str, head_sha: str) -> None:
    """Notes where the work on the branch ended; more may be pushed and finished again."""
    await store.change(tx, ticket_id, state="finished", head_sha=head_sha)


async def merged(tx: Tx, ticket_id: str, head_sha: str, merge_sha: str) -> None:
    """Notes that the branch is in its target."""
    await store.change(tx, ticket_id, state=MERGED, head_sha=head_sha, merge_sha=merge_sha)
