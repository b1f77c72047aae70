"""SQL of tickets' branches."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from servicekit.db import Tx
from vcs_service.mirror.tables import TicketBranch


async def find(tx: Tx, ticket_id: str, *, lock: bool = False) -> TicketBranch | None:
    """The branch of a ticket."""
    query = select(TicketBranch).where(TicketBranch.ticket_id == ticket_id)
    query = query.execution_options(populate_existing=True)
    return (await tx.session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()


async def add(tx: Tx, **values: Any) -> TicketBranch | None:
    """Inserts the branch of a ticket; None when it has one."""
    statement = upsert(TicketBranch).values(**values).on_conflict_do_nothing().returning(TicketBranch)
    return (await tx.session.execute(statement)).scalar_one_or_none()


async def change(tx: Tx, ticket_id: str, **values: Any) -> None:
    """Sets the given columns."""
    statement = update(TicketBranch).where(TicketBranch.ticket_id == ticket_id)
    await tx.session.execute(statement.values(updated_at=func.now(), **values))
