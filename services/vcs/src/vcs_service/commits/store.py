"""SQL of commits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as upsert

from servicekit.db import Tx
from vcs_service.commits.tables import TicketCommit


async def link(tx: Tx, rows: Sequence[dict[str, Any]]) -> Sequence[TicketCommit]:
    """Inserts the links that are not there yet; returns those."""
    if not rows:
        return []
    statement = upsert(TicketCommit).values(list(rows)).on_conflict_do_nothing().returning(TicketCommit)
    return (await tx.session.execute(statement)).scalars().all()


async def find(
    tx: Tx, sha: str, organization_ids: Sequence[str] | None, ticket_id: str | None = None
) -> TicketCommit | None:
    """The newest link of a commit by full id or prefix, in the given organizations and to the ticket (None: any)."""
    query = select(TicketCommit).where(TicketCommit.commit_sha.startswith(sha, autoescape=True))
    if organization_ids is not None:
        query = query.where(TicketCommit.organization_id.in_(organization_ids))
    if ticket_id is not None:
        query = query.where(TicketCommit.ticket_id == ticket_id)
    query = query.order_by((TicketCommit.commit_sha == sha).desc(), TicketCommit.linked_at.desc(), TicketCommit.id)
    return (await tx.session.execute(query.limit(1))).scalar_one_or_none()


async def list_by(
    tx: Tx,
    *,
    limit: int,
    offset: int,
    ticket_id: str | None = None,
    agent_id: str | None = None,
    organization_ids: Sequence[str] | None = None,
) -> tuple[Sequence[TicketCommit], int]:
    """(a page newest first, how many there are) of one ticket or agent."""
    conditions = []
    if ticket_id is not None:
        conditions.append(TicketCommit.ticket_id == ticket_id)
    if agent_id is not None:
        conditions.append(TicketCommit.agent_id == agent_id)
    if organization_ids is not None:
        conditions.append(TicketCommit.organization_id.in_(organization_ids))
    page = (
        select(TicketCommit)
        .where(*conditions)
        .order_by(TicketCommit.commit_timestamp.desc(), TicketCommit.id.desc())
        .limit(limit)
        .offset(offset)
    )
    rows = (await tx.session.execute(page)).scalars().all()
    total = (await tx.session.execute(select(func.count()).select_from(TicketCommit).where(*conditions))).scalar_one()
    return rows, total


async def count_by_project(tx: Tx, project_ids: Sequence[str]) -> dict[str, int]:
    """Project → number of different commits linked to its tickets."""
    query = (
        select(TicketCommit.project_id, func.count(TicketCommit.commit_sha.distinct()))
        .where(TicketCommit.project_id.in_(project_ids))
        .group_by(TicketCommit.project_id)
    )
    return {project_id: count for project_id, count in await tx.session.execute(query) if project_id is not None}
