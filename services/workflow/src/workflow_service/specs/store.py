"""SQL of specs and their parts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, insert, select

from servicekit.db import Tx
from servicekit.ids import new_id
from workflow_service.coordination.tables import TaskCommits
from workflow_service.engine.tables import Ticket
from workflow_service.queue.rules import Hold
from workflow_service.queue.tables import Task
from workflow_service.specs.tables import Criterion, Requirement, Spec, SpecTask, SpecVersion

COUNT_LIMIT = 100_000


async def now(tx: Tx) -> datetime:
    """The database's clock."""
    value: datetime = (await tx.session.scalars(select(func.clock_timestamp()))).one()
    return value


async def get(tx: Tx, spec_id: str, *, lock: bool = False) -> Spec | None:
    """One spec, locked on request."""
    statement = select(Spec).where(Spec.id == spec_id)
    if lock:
        statement = statement.with_for_update(key_share=True).execution_options(populate_existing=True)
    return (await tx.session.scalars(statement)).one_or_none()


async def add(tx: Tx, spec: Spec) -> None:
    """Insert one spec."""
    tx.session.add(spec)
    await tx.session.flush()


async def branches(tx: Tx, project_id: str, prefix: str) -> list[str]:
    """Target branches of the project that start with `prefix`."""
    rows = await tx.session.scalars(
        select(Spec.target_branch).where(
            Spec.project_id == project_id, Spec.target_branch.startswith(prefix, autoescape=True)
        )
    )
    return list(rows.all())


async def add_requirements(tx: Tx, rows: Sequence[dict[str, Any]]) -> None:
    """Insert requirements with all the same columns."""
    if rows:
        await tx.session.execute(insert(Requirement), list(rows))


async def add_criteria(tx: Tx, rows: Sequence[dict[str, Any]]) -> None:
    """Insert criteria with all the same columns."""
    if rows:
        await tx.session.execute(insert(Criterion), list(rows))


async def add_spec_tasks(tx: Tx, rows: Sequence[dict[str, Any]]) -> None:
    """Insert tasks of specs with all the same columns."""
    if rows:
        await tx.session.execute(insert(SpecTask), list(rows))


async def add_version(
    tx: Tx, spec: Spec, change_type: str, summary: str, details: dict[str, Any] | None, by: str | None
) -> None:
    """Record a change; the number is the next one. The caller holds the spec's lock or has just made it."""
    number = await tx.session.scalar(
        select(func.coalesce(func.max(SpecVersion.version_number), 0) + 1).where(SpecVersion.spec_id == spec.id)
    )
    snapshot = {
        "title": spec.title,
        "description": spec.description,
        "status": spec.status,
        "phase": spec.phase,
        "progress": spec.progress,
        "requirements_approved": spec.requirements_approved,
        "design_approved": spec.design_approved,
    }
    row = {
        "id": new_id("spec-ver-"),
        "spec_id": spec.id,
        "version_number": number,
        "change_type": change_type,
        "change_summary": summary,
        "change_details": details,
        "created_by": by,
        "snapshot": snapshot,
    }
    await tx.session.execute(insert(SpecVersion), [row])


async def versions(tx: Tx, spec_id: str, limit: int) -> list[SpecVersion]:
    """Recorded changes, newest first."""
    rows = await tx.session.scalars(
        select(SpecVersion)
        .where(SpecVersion.spec_id == spec_id)
        .order_by(SpecVersion.version_number.desc())
        .limit(limit)
    )
    return list(rows.all())


async def page(
    tx: Tx, project_id: str, status: str | None, include_archived: bool, limit: int, offset: int
) -> tuple[list[Spec], int]:
    """Specs of a project, newest first, and the number of all that match."""
    where: list[ColumnElement[bool]] = [Spec.project_id == project_id]
    if status is not None:
        where.append(Spec.status == status)
    if not include_archived:
        where.append(Spec.archived.is_(False))
    rows = await tx.session.scalars(
        select(Spec).where(*where).order_by(Spec.created_at.desc(), Spec.id.desc()).limit(limit).offset(offset)
    )
    counted = select(Spec.id).where(*where).limit(COUNT_LIMIT).subquery()
    total = await tx.session.scalar(select(func.count()).select_from(counted))
    return list(rows.all()), total or 0


async def requirements(tx: Tx, spec_ids: Sequence[str], per_spec: int) -> list[Requirement]:
    """Requirements in their order, at most `per_spec` of each spec."""
    place = func.row_number().over(partition_by=Requirement.spec_id, order_by=(Requirement.position, Requirement.id))
    ranked = select(Requirement.id, place.label("place")).where(Requirement.spec_id.in_(spec_ids)).subquery()
    rows = await tx.session.scalars(
        select(Requirement)
        .join(ranked, ranked.c.id == Requirement.id)
        .where(ranked.c.place <= per_spec)
        .order_by(Requirement.spec_id, Requirement.position, Requirement.id)
    )
    return list(rows.all())


async def criteria(tx: Tx, requirement_ids: Sequence[str]) -> list[Criterion]:
    """Criteria of requirements in their order."""
    rows = await tx.session.scalars(
        select(Criterion)
        .where(Criterion.requirement_id.in_(requirement_ids))
        .order_by(Criterion.requirement_id, Criterion.position, Criterion.id)
    )
    return list(rows.all())


async def spec_tasks(
    tx: Tx, spec_ids: Sequence[str], per_spec: int
) -> list[tuple[SpecTask, str | None, str | None, int | None, str | None]]:
    """(spec task, status, merge state, holds, agent of its queue task), in order, at most `per_spec` of each spec."""
    place = func.row_number().over(partition_by=SpecTask.spec_id, order_by=(SpecTask.position, SpecTask.id))
    ranked = select(SpecTask.id, place.label("place")).where(SpecTask.spec_id.in_(spec_ids)).subquery()
    rows = await tx.session.execute(
        select(SpecTask, Task.status, Task.merge_state, Task.holds, Task.assigned_agent_id)
        .join(ranked, ranked.c.id == SpecTask.id)
        .outerjoin(Task, Task.id == SpecTask.task_id)
        .where(ranked.c.place <= per_spec)
        .order_by(SpecTask.spec_id, SpecTask.position, SpecTask.id)
    )
    return [(row[0], row[1], row[2], row[3], row[4]) for row in rows]


async def ticket_counts(tx: Tx, spec_ids: Sequence[str]) -> dict[str, int]:
    """Tickets linked to each spec."""
    rows = await tx.session.execute(
        select(Ticket.spec_id, func.count()).where(Ticket.spec_id.in_(spec_ids)).group_by(Ticket.spec_id)
    )
    return {str(row[0]): row[1] for row in rows}


async def commit_counts(tx: Tx, spec_ids: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """(commits, lines added, lines removed) of the tasks of each spec."""
    rows = await tx.session.execute(
        select(
            Task.spec_id,
            func.sum(TaskCommits.commits),
            func.sum(TaskCommits.lines_added),
            func.sum(TaskCommits.lines_removed),
        )
        .join(TaskCommits, TaskCommits.task_id == Task.id)
        .where(Task.spec_id.in_(spec_ids))
        .group_by(Task.spec_id)
    )
    return {str(row[0]): (int(row[1]), int(row[2]), int(row[3])) for row in rows}


async def active_agents(tx: Tx, spec_ids: Sequence[str]) -> dict[str, int]:
    """Distinct agents at work on each spec."""
    rows = await tx.session.execute(
        select(Task.spec_id, func.count(Task.assigned_agent_id.distinct()))
        .where(Task.spec_id.in_(spec_ids), Task.status.in_(("assigned", "running")))
        .group_by(Task.spec_id)
    )
    return {str(row[0]): row[1] for row in rows}


async def task_counts(tx: Tx, spec_id: str) -> list[tuple[str, str, bool, int]]:
    """(status, merge state, held by a lost dependency, tasks) of the queue tasks of a spec."""
    held = (Task.holds.op("&")(int(Hold.DEPENDENCY_FAILED)) != 0).label("held")
    rows = await tx.session.execute(
        select(Task.status, Task.merge_state, held, func.count())
        .where(Task.spec_id == spec_id)
        .group_by(Task.status, Task.merge_state, held)
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]


async def planned_counts(tx: Tx, spec_id: str) -> dict[str, int]:
    """Tasks of a spec that have no queue task, by their own status."""
    rows = await tx.session.execute(
        select(SpecTask.status, func.count())
        .where(SpecTask.spec_id == spec_id, SpecTask.task_id.is_(None))
        .group_by(SpecTask.status)
    )
    return {str(row[0]): row[1] for row in rows}


async def task_contexts(tx: Tx, task_ids: Sequence[str]) -> list[tuple[str, Ticket, Spec | None, str | None]]:
    """(task id, ticket, spec or None, spec task id) of tasks."""
    rows = await tx.session.execute(
        select(Task.id, Ticket, Spec, Task.spec_task_id)
        .join(Ticket, Ticket.id == Task.ticket_id)
        .outerjoin(Spec, Spec.id == Task.spec_id)
        .where(Task.id.in_(task_ids))
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]


async def requirements_by_id(tx: Tx, ids: Sequence[str]) -> list[Requirement]:
    """Those of these requirements that exist."""
    return list((await tx.session.scalars(select(Requirement).where(Requirement.id.in_(ids)))).all())


async def counts_by_status(tx: Tx, organization_ids: Sequence[str]) -> list[tuple[str, str, int]]:
    """(organization, status, specs), archived ones left out."""
    rows = await tx.session.execute(
        select(Spec.organization_id, Spec.status, func.count())
        .where(Spec.organization_id.in_(organization_ids), Spec.archived.is_(False))
        .group_by(Spec.organization_id, Spec.status)
    )
    return [(row[0], row[1], row[2]) for row in rows]
