"""Use cases of results."""

from __future__ import annotations

from servicekit.auth import Principal, PrincipalType
from servicekit.db import Database, Tx
from servicekit.errors import invalid
from servicekit.ids import new_id
from workflow_service import events
from workflow_service.engine.service import EngineService
from workflow_service.errors import NOT_THE_TASKS_AGENT, RESULT_DECIDED, RESULT_NOT_FOUND, TASK_NOT_FOUND
from workflow_service.queue.service import QueueService
from workflow_service.queue.tables import Task
from workflow_service.results import rules, store
from workflow_service.results.schemas import (
    AgentResultOut,
    ReportBody,
    SubmitBody,
    SubmitOut,
    ValidateBody,
    ValidateOut,
    WorkflowResultOut,
)
from workflow_service.results.tables import AgentResult, WorkflowResult


class ResultService:
    """Results of tasks and workflows. Who reports is taken from the credential, never from a header."""

    def __init__(self, db: Database, queue: QueueService, engine: EngineService) -> None:
        self._db = db
        self._queue = queue
        self._engine = engine

    async def report(self, principal: Principal, body: ReportBody) -> AgentResultOut:
        """Keep the result of a task. A sandbox reports for its own task, an agent for one that is assigned to it."""
        if body.result_type not in rules.RESULT_TYPES:
            raise invalid("result_type", f"must be one of {', '.join(rules.RESULT_TYPES)}", body.result_type)
        rules.check_path(body.markdown_file_path)
        rules.check_content(body.markdown_content)
        async with self._db.uow() as tx:
            task = await self._task(tx, principal, "task:write", body.task_id)
            agent_id = _agent_of(principal)
            if principal.type is PrincipalType.AGENT and task.assigned_agent_id != agent_id:
                raise NOT_THE_TASKS_AGENT()
            row = AgentResult(
                id=new_id(),
                organization_id=task.organization_id,
                task_id=task.id,
                agent_id=agent_id,
                markdown_content=body.markdown_content,
                markdown_file_path=body.markdown_file_path,
                result_type=body.result_type,
                summary=body.summary,
                verification_status="unverified",
            )
            await store.add(tx, row)
            events.result_submitted(tx, task, row.id, agent_id, body.result_type)
            return tx.result(_result(row))

    async def of_task(self, principal: Principal, task_id: str) -> list[AgentResultOut]:
        """Results of a task, oldest first."""
        async with self._db.reader() as tx:
            await self._task(tx, principal, "task:read", task_id)
            return [_result(row) for row in await store.of_task(tx, task_id)]

    async def submit(self, principal: Principal, body: SubmitBody) -> SubmitOut:
        """Keep the result of a workflow; it waits for a validation."""
        rules.check_path(body.markdown_file_path)
        rules.check_content(body.markdown_content)
        async with self._db.uow() as tx:
            ticket = await self._engine.require(tx, principal, "task:write", body.workflow_id)
            row = WorkflowResult(
                id=new_id(),
                organization_id=ticket.organization_id,
                workflow_id=ticket.id,
                agent_id=_agent_of(principal),
                markdown_content=body.markdown_content,
                markdown_file_path=body.markdown_file_path,
                explanation=body.explanation,
                evidence={"items": body.evidence} if body.evidence else None,
                status="pending_validation",
            )
            await store.add(tx, row)
            events.workflow_result_submitted(tx, ticket, row.id, row.agent_id)
            return tx.result(
                SubmitOut(
                    status="submitted",
                    result_id=row.id,
                    workflow_id=ticket.id,
                    agent_id=row.agent_id,
                    validation_triggered=False,
                    message="The result waits for a validation",
                    created_at=row.created_at,
                )
            )

    async def validate(self, principal: Principal, body: ValidateBody) -> ValidateOut:
        """Decide on a result, once. A result that passed ends the work of its ticket. Raises 409 when decided."""
        async with self._db.uow() as tx:
            row = await store.lock(tx, body.result_id)
            if row is None:
                raise RESULT_NOT_FOUND()
            principal.require("ticket:write", row.organization_id, missing=RESULT_NOT_FOUND)
            if row.status != "pending_validation":
                raise RESULT_DECIDED(status=row.status)
            row.status = rules.decided(body.validation_passed)
            row.validated_at = await self._engine.clock(tx)
            row.validated_by = principal.subject
            row.validation_feedback = body.feedback
            row.validation_evidence = list(body.evidence)
            ticket = await self._engine.find(tx, row.workflow_id)
            assert ticket is not None
            events.workflow_result_validated(tx, ticket, row.id, body.validation_passed, principal.subject)
            action = "result_logged"
            if body.validation_passed:
                await self._queue.cancel_of_ticket(tx, ticket.id, "validated_result_found")
                action = "workflow_terminated"
            return tx.result(
                ValidateOut(
                    result_id=row.id,
                    validation_status=row.status,
                    passed=body.validation_passed,
                    action_taken=action,
                    billing_recorded=False,
                    message=f"The result was {row.status}",
                )
            )

    async def of_workflow(self, principal: Principal, workflow_id: str) -> list[WorkflowResultOut]:
        """Results of a workflow, oldest first."""
        async with self._db.reader() as tx:
            await self._engine.require(tx, principal, "ticket:read", workflow_id)
            rows = await store.of_workflow(tx, workflow_id)
        return [
            WorkflowResultOut(
                result_id=row.id,
                workflow_id=row.workflow_id,
                agent_id=row.agent_id,
                markdown_file_path=row.markdown_file_path,
                explanation=row.explanation,
                evidence=row.evidence,
                status=row.status,
                validated_at=row.validated_at,
                validation_feedback=row.validation_feedback,
                created_at=row.created_at,
            )
            for row in rows
        ]

    async def _task(self, tx: Tx, principal: Principal, permission: str, task_id: str) -> Task:
        task = await self._queue.find(tx, task_id)
        own = principal.type is not PrincipalType.SANDBOX or principal.claims.get("task") == task_id
        if task is None or not own:
            raise TASK_NOT_FOUND()
        principal.require(permission, task.organization_id, missing=TASK_NOT_FOUND)
        return task


def _agent_of(principal: Principal) -> str:
    """Who reports: the agent behind a sandbox or agent token, the user himself otherwise."""
    agent = principal.claims.get("agent")
    return agent if isinstance(agent, str) else principal.subject


def _result(row: AgentResult) -> AgentResultOut:
    return AgentResultOut(
        result_id=row.id,
        agent_id=row.agent_id,
        task_id=row.task_id,
        markdown_file_path=row.markdown_file_path,
        result_type=row.result_type,
        summary=row.summary,
        verification_status=row.verification_status,
        verified_at=row.verified_at,
        verified_by_validation_id=row.verified_by_validation_id,
        created_at=row.created_at,
    )
