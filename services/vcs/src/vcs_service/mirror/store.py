"""SQL of repositories and branches."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import BigInteger, cast, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from servicekit.db import Tx
from vcs_service.mirror.tables import Branch, Repository


async def bind(tx: Tx, project_id: str, **values: Any) -> Repository:
    """Makes or replaces the repository of a project; it wants a fetch at once."""
    fresh = {"state": "mirroring", "error": None, "head_sha": None, "tries": 0, "due_at": func.now(), **values}
    # A project that was unbound starts anew above every version that others have heard of: changes of one repository
    # are further apart than a millisecond.
    first = cast(func.extract("epoch", func.clock_timestamp()) * 1000, BigInteger)
    statement = upsert(Repository).values(project_id=project_id, version=first, **fresh)
    statement = statement.on_conflict_do_update(
        index_elements=[Repository.project_id],
        set_={**fresh, "version": Repository.version + 1, "updated_at": func.now()},
    )
    return (
        await tx.session.execute(statement.returning(Repository), execution_options={"populate_existing": True})
    ).scalar_one()


async def find(tx: Tx, project_id: str, *, lock: bool = False) -> Repository | None:
    """The repository of a project."""
    query = select(Repository).where(Repository.project_id == project_id)
    return (await tx.session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()


async def find_many(tx: Tx, project_ids: Sequence[str]) -> Sequence[Repository]:
    """The repositories of the projects that have one."""
    query = select(Repository).where(Repository.project_id.in_(project_ids))
    return (await tx.session.execute(query)).scalars().all()


async def page(tx: Tx, after: str, limit: int) -> Sequence[Repository]:
    """A page of all repositories by project id."""
    query = select(Repository).where(Repository.project_id > after).order_by(Repository.project_id).limit(limit)
    return (await tx.session.execute(query)).scalars().all()


async def change(tx: Tx, project_id: str, **values: Any) -> Repository:
    """Sets the given columns and raises the version; the repository must exist."""
    statement = (
        update(Repository)
        .where(Repository.project_id == project_id)
        .values(version=Repository.version + 1, updated_at=func.now(), **values)
        .returning(Repository)
        .execution_options(populate_existing=True)
    )
    return (await tx.session.execute(statement)).scalar_one()


async def remove(tx: Tx, project_id: str) -> None:
    """Forgets the repository of a project; its branches' rows stay for the record."""
    repository = await find(tx, project_id, lock=True)
    if repository is not None:
        await tx.session.delete(repository)


async def take_due(tx: Tx, lease: timedelta) -> Repository | None:
    """The repository that has waited longest for a fetch; another instance gets it only after `lease`."""
    due = (
        select(Repository.project_id)
        .where(Repository.due_at <= func.now())
        .order_by(Repository.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    statement = (
        update(Repository)
        .where(Repository.project_id == due.scalar_subquery())
        .values(due_at=func.now() + lease, tries=Repository.tries + 1)
        .returning(Repository)
    )
    return (await tx.session.execute(statement)).scalar_one_or_none()


async def renew(tx: Tx, project_id: str, tries: int, length: timedelta) -> None:
    """Prolongs the lease of the worker that took the repository as the given try; changes nothing for any other."""
    mine = (Repository.project_id == project_id, Repository.due_at.is_not(None), Repository.tries == tries)
    await tx.session.execute(update(Repository).where(*mine).values(due_at=func.now() + length))


async def add_branch(tx: Tx, **values: Any) -> Branch | None:
    """Inserts the branch of an attempt; None when it is there already."""
    statement = upsert(Branch).values(**values).on_conflict_do_nothing().returning(Branch)
    return (await tx.session.execute(statement)).scalar_one_or_none()


async def find_branch(tx: Tx, task_id: str, attempt: int, *, lock: bool = False) -> Branch | None:
    """The branch of an attempt."""
    query = select(Branch).where(Branch.task_id == task_id, Branch.attempt == attempt)
    return (await tx.session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()


async def find_branch_named(tx: Tx, ticket_id: str, branch: str) -> Branch | None:
    """The attempt at a task of the ticket whose branch has that name."""
    query = select(Branch).where(Branch.ticket_id == ticket_id, Branch.branch == branch)
    return (await tx.session.execute(query)).scalar_one_or_none()


async def latest_attempt(tx: Tx, task_id: str) -> int:
    """The highest attempt at a task that has a branch; 0 when none has."""
    query = select(func.coalesce(func.max(Branch.attempt), 0)).where(Branch.task_id == task_id)
    return int((await tx.session.execute(query)).scalar_one())


async def finish_branch(tx: Tx, task_id: str, attempt: int, head_sha: str) -> None:
    """Notes the last commit of an attempt's branch."""
    await tx.session.execute(
        update(Branch)
        .where(Branch.task_id == task_id, Branch.attempt == attempt)
        .values(state="finished", head_sha=head_sha, finished_at=func.now())
    )


async def set_branch_state(tx: Tx, task_id: str, attempt: int, state: str) -> None:
    """Sets the state of an attempt's branch."""
    await tx.session.execute(
        update(Branch).where(Branch.task_id == task_id, Branch.attempt == attempt).values(state=state)
    )
