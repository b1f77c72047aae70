"""SQL of projects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, bindparam, func, select
from sqlalchemy.dialects.postgresql import insert

from servicekit.db import Tx
from workflow_service.projects.tables import Project

# A count of projects stops here; no organization comes near, and no answer depends on more.
COUNT_LIMIT = 100_000

# Made once: nearly every request of this service reads a project.
_ONE = select(Project).where(Project.id == bindparam("project"))
_LOCKED = _ONE.with_for_update(key_share=True)
_SHARED = _ONE.with_for_update(read=True).execution_options(populate_existing=True)


async def add(tx: Tx, project: Project) -> None:
    """Insert; raises IntegrityError when the name is taken."""
    tx.session.add(project)
    await tx.session.flush()


async def add_if_free(tx: Tx, values: Mapping[str, Any]) -> Project | None:
    """Insert, after whoever is inserting the same name has ended; None when the name is taken."""
    statement = insert(Project).values(values).on_conflict_do_nothing(index_elements=["organization_id", "name"])
    return (await tx.session.scalars(statement.returning(Project))).one_or_none()


async def get(tx: Tx, project_id: str, *, lock: bool = False, share: bool = False) -> Project | None:
    """One project; on request locked against other writers, or shared with others that read what must not change."""
    statement = _LOCKED if lock else _SHARED if share else _ONE
    return (await tx.session.scalars(statement, {"project": project_id})).one_or_none()


async def of_repository(tx: Tx, organization_ids: Sequence[str], owner: str, repo: str) -> Project | None:
    """The oldest project of these organizations on this repository that is not archived."""
    rows = await tx.session.scalars(
        select(Project)
        .where(
            Project.organization_id.in_(organization_ids),
            Project.github_owner == owner,
            Project.github_repo == repo,
            Project.status != "archived",
        )
        .order_by(Project.created_at, Project.id)
        .limit(1)
    )
    return rows.one_or_none()


async def get_many(tx: Tx, ids: Sequence[str]) -> list[Project]:
    """Those of these projects that exist."""
    return list((await tx.session.scalars(select(Project).where(Project.id.in_(ids)))).all())


async def name_exists(tx: Tx, organization_id: str, name: str) -> bool:
    """Whether the organization has a project of this name."""
    found = await tx.session.scalar(
        select(Project.id).where(Project.organization_id == organization_id, Project.name == name)
    )
    return found is not None


async def page(
    tx: Tx, organization_ids: Sequence[str], status: str | None, limit: int, offset: int
) -> tuple[list[Project], int]:
    """Newest first, and the number of all that match."""
    where: list[ColumnElement[bool]] = [Project.organization_id.in_(organization_ids)]
    if status is not None:
        where.append(Project.status == status)
    rows = await tx.session.scalars(
        select(Project).where(*where).order_by(Project.created_at.desc(), Project.id.desc()).limit(limit).offset(offset)
    )
    counted = select(Project.id).where(*where).limit(COUNT_LIMIT).subquery()
    total = await tx.session.scalar(select(func.count()).select_from(counted))
    return list(rows.all()), total or 0


async def newest_of(tx: Tx, organization_ids: Sequence[str], limit: int) -> list[str]:
    """Ids of the newest projects of these organizations that are not archived."""
    rows = await tx.session.scalars(
        select(Project.id)
        .where(Project.organization_id.in_(organization_ids), Project.status != "archived")
        .order_by(Project.created_at.desc(), Project.id.desc())
        .limit(limit)
    )
    return list(rows.all())


async def due_bindings(tx: Tx, limit: int) -> list[Project]:
    """Projects whose repository is to be bound, or asked after, now."""
    rows = await tx.session.scalars(
        select(Project)
        .where(
            Project.repository_state.in_(("binding", "mirroring")),
            func.coalesce(Project.bind_after, func.to_timestamp(0)) <= func.clock_timestamp(),
        )
        .order_by(Project.bind_after)
        .limit(limit)
    )
    return list(rows.all())


async def snapshot(tx: Tx, after: str, limit: int) -> list[Project]:
    """Projects by id, for replicas."""
    rows = await tx.session.scalars(select(Project).where(Project.id > after).order_by(Project.id).limit(limit))
    return list(rows.all())


async def now(tx: Tx) -> datetime:
    """The database's clock."""
    value: datetime = (await tx.session.scalars(select(func.clock_timestamp()))).one()
    return value
