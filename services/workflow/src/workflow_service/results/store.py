"""SQL of results."""

from __future__ import annotations

from sqlalchemy import select

from servicekit.db import Tx
from workflow_service.results.tables import AgentResult, WorkflowResult

LIMIT = 500


async def add(tx: Tx, row: AgentResult | WorkflowResult) -> None:
    """Insert one."""
    tx.session.add(row)
    await tx.session.flush()
    await tx.session.refresh(row)


async def of_task(tx: Tx, task_id: str) -> list[AgentResult]:
    """Results of a task, oldest first."""
    rows = await tx.session.scalars(
        select(AgentResult)
        .where(AgentResult.task_id == task_id)
        .order_by(AgentResult.created_at, AgentResult.id)
        .limit(LIMIT)
    )
    return list(rows.all())


async def of_workflow(tx: Tx, workflow_id: str) -> list[WorkflowResult]:
    """Results of a workflow, oldest first."""
    rows = await tx.session.scalars(
        select(WorkflowResult)
        .where(WorkflowResult.workflow_id == workflow_id)
        .order_by(WorkflowResult.created_at, WorkflowResult.id)
        .limit(LIMIT)
    )
    return list(rows.all())


async def lock(tx: Tx, result_id: str) -> WorkflowResult | None:
    """One workflow result, locked."""
    return (
        await tx.session.scalars(select(WorkflowResult).where(WorkflowResult.id == result_id).with_for_update())
    ).one_or_none()
