"""SQL of merges."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from servicekit.db import Tx
from vcs_service.merging.tables import Merge


async def add(tx: Tx, **values: Any) -> Merge | None:
    """Inserts a merge; None when its id is known."""
    statement = upsert(Merge).values(**values).on_conflict_do_nothing().returning(Merge)
    return (await tx.session.execute(statement)).scalar_one_or_none()


async def find(tx: Tx, merge_id: str, *, lock: bool = False) -> Merge | None:
    """A merge."""
    query = select(Merge).where(Merge.id == merge_id).execution_options(populate_existing=True)
    return (await tx.session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()


async def find_many(tx: Tx, ids: Sequence[str]) -> Sequence[Merge]:
    """The merges that exist among `ids`."""
    return (await tx.session.execute(select(Merge).where(Merge.id.in_(ids)))).scalars().all()


async def take_open(tx: Tx, lease: timedelta) -> Merge | None:
    """The oldest merge that nobody works on and whose target no other running merge writes; leased for `lease`."""
    other = select(Merge).correlate(None).subquery()
    busy = (
        select(other.c.id)
        .where(
            other.c.project_id == Merge.project_id,
            other.c.target_branch == Merge.target_branch,
            other.c.id != Merge.id,
            other.c.state == "running",
            other.c.lease_until > func.now(),
        )
        .exists()
    )
    free = (
        select(Merge.id)
        .where(
            Merge.state.in_(("queued", "running")),
            or_(Merge.lease_until.is_(None), Merge.lease_until <= func.now()),
            ~busy,
        )
        .order_by(Merge.created_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    statement = (
        update(Merge)
        .where(Merge.id == free.scalar_subquery())
        .values(state="running", lease_until=func.now() + lease, tries=Merge.tries + 1)
        .returning(Merge)
    )
    return (await tx.session.execute(statement)).scalar_one_or_none()


async def change(tx: Tx, merge_id: str, **values: Any) -> Merge:
    """Sets the given columns; the merge must exist."""
    statement = (
        update(Merge)
        .where(Merge.id == merge_id)
        .values(**values)
        .returning(Merge)
        .execution_options(populate_existing=True)
    )
    return (await tx.session.execute(statement)).scalar_one()


async def finish(tx: Tx, merge_id: str, **values: Any) -> Merge:
    """Sets the given columns and ends the work on a merge."""
    return await change(tx, merge_id, lease_until=None, finished_at=func.now(), **values)


async def renew(tx: Tx, merge_id: str, tries: int, length: timedelta) -> None:
    """Prolongs the lease of the worker that took the merge as the given try; changes nothing for any other."""
    mine = (Merge.id == merge_id, Merge.state == "running", Merge.tries == tries)
    await tx.session.execute(update(Merge).where(*mine).values(lease_until=func.now() + length))


async def lease(tx: Tx, merge_id: str, length: timedelta, **values: Any) -> Merge:
    """Sets the given columns; nobody else takes the merge for `length`."""
    return await change(tx, merge_id, lease_until=func.now() + length, **values)
