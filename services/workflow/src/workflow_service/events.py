"""Everything this service can say: one function per event, called inside the transaction that makes it true."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from omoios.workflow.events.v1 import events_pb2 as pb
from servicekit.db import Tx
from workflow_service.coordination.tables import Execution
from workflow_service.engine.rules import Move
from workflow_service.engine.tables import Ticket
from workflow_service.projects.tables import Project
from workflow_service.specs.tables import Spec

# One packed message holds at most this many tasks.
PACK = 500


class TaskLike(Protocol):
    """What an event tells of a task: a row of `tasks`, or a part of one."""

    id: Any
    organization_id: Any
    project_id: Any
    ticket_id: Any
    spec_id: Any
    execution_id: Any
    phase_id: Any
    task_type: Any
    priority: Any
    status: Any
    title: Any
    version: Any


def reference(task: TaskLike, old_status: str = "") -> pb.TaskReference:
    """Who and where a task is."""
    return pb.TaskReference(
        task_id=task.id,
        ticket_id=task.ticket_id,
        project_id=task.project_id,
        spec_id=task.spec_id or "",
        execution_id=task.execution_id or "",
        phase_id=task.phase_id,
        task_type=task.task_type,
        priority=task.priority,
        status=task.status,
        old_status=old_status,
        title=task.title or "",
    )


def _json(changes: Mapping[str, Any]) -> str:
    return json.dumps(changes, default=str, separators=(",", ":"))


def _time(value: datetime | None) -> Timestamp | None:
    if value is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp


def _project(tx: Tx, project: Project, message: Any) -> None:
    tx.emit(message, aggregate_id=project.id, version=project.version, organization_id=project.organization_id)


def project_created(tx: Tx, project: Project) -> None:
    _project(
        tx,
        project,
        pb.ProjectCreated(
            project_id=project.id,
            name=project.name,
            github_owner=project.github_owner or "",
            github_repo=project.github_repo or "",
            created_by=project.created_by or "",
        ),
    )


def project_updated(tx: Tx, project: Project, changes: Mapping[str, Any]) -> None:
    _project(
        tx,
        project,
        pb.ProjectUpdated(project_id=project.id, name=project.name, status=project.status, changes_json=_json(changes)),
    )


def project_archived(tx: Tx, project: Project) -> None:
    _project(tx, project, pb.ProjectArchived(project_id=project.id))


def _spec(tx: Tx, spec: Spec, message: Any) -> None:
    tx.emit(message, aggregate_id=spec.id, version=spec.version, organization_id=spec.organization_id)


def spec_created(tx: Tx, spec: Spec, requirements: int, tasks: int) -> None:
    _spec(
        tx,
        spec,
        pb.SpecCreated(
            spec_id=spec.id,
            project_id=spec.project_id,
            title=spec.title,
            created_by=spec.user_id or "",
            requirements=requirements,
            tasks=tasks,
        ),
    )


def spec_updated(tx: Tx, spec: Spec, changes: Mapping[str, Any]) -> None:
    _spec(
        tx,
        spec,
        pb.SpecUpdated(
            spec_id=spec.id,
            project_id=spec.project_id,
            status=spec.status,
            phase=spec.phase,
            changes_json=_json(changes),
        ),
    )


def _execution(tx: Tx, execution: Execution, message: Any) -> None:
    tx.emit(message, aggregate_id=execution.id, version=execution.version, organization_id=execution.organization_id)


def execution_started(tx: Tx, execution: Execution, tasks: int) -> None:
    _execution(
        tx,
        execution,
        pb.ExecutionStarted(
            execution_id=execution.id,
            spec_id=execution.spec_id,
            project_id=execution.project_id,
            reservation_id=execution.reservation_id,
            started_by=execution.started_by,
            tasks=tasks,
            target_branch=execution.target_branch,
        ),
    )


def execution_paused(tx: Tx, execution: Execution, reason: str) -> None:
    _execution(
        tx,
        execution,
        pb.ExecutionPaused(
            execution_id=execution.id, spec_id=execution.spec_id, project_id=execution.project_id, reason=reason
        ),
    )


def execution_resumed(tx: Tx, execution: Execution) -> None:
    _execution(
        tx,
        execution,
        pb.ExecutionResumed(execution_id=execution.id, spec_id=execution.spec_id, project_id=execution.project_id),
    )


def execution_finished(tx: Tx, execution: Execution) -> None:
    _execution(
        tx,
        execution,
        pb.ExecutionFinished(
            execution_id=execution.id,
            spec_id=execution.spec_id,
            project_id=execution.project_id,
            reservation_id=execution.reservation_id,
            outcome=execution.state,
            tasks_completed=execution.tasks_completed,
            tasks_failed=execution.tasks_failed,
            tasks_cancelled=execution.tasks_cancelled,
        ),
    )


def execution_restated(tx: Tx, execution: Execution) -> None:
    _execution(
        tx,
        execution,
        pb.ExecutionRestated(
            execution_id=execution.id,
            spec_id=execution.spec_id,
            project_id=execution.project_id,
            state=execution.state,
        ),
    )


def execution_unknown(tx: Tx, execution_id: str, spec_id: str, project_id: str, organization_id: str | None) -> None:
    tx.emit(
        pb.ExecutionRestated(execution_id=execution_id, spec_id=spec_id, project_id=project_id, state="unknown"),
        aggregate_id=execution_id,
        organization_id=organization_id,
    )


def _ticket(tx: Tx, ticket: Ticket, message: Any) -> None:
    tx.emit(message, aggregate_id=ticket.id, version=ticket.version, organization_id=ticket.organization_id)


def ticket_created(tx: Tx, ticket: Ticket) -> None:
    _ticket(
        tx,
        ticket,
        pb.TicketCreated(
            ticket_id=ticket.id,
            project_id=ticket.project_id,
            spec_id=ticket.spec_id or "",
            title=ticket.title,
            priority=ticket.priority,
            phase_id=ticket.phase_id,
            status=ticket.status,
        ),
    )


def ticket_updated(tx: Tx, ticket: Ticket, changes: Mapping[str, Any]) -> None:
    _ticket(
        tx,
        ticket,
        pb.TicketUpdated(
            ticket_id=ticket.id, project_id=ticket.project_id, changes_json=_json(changes), title=ticket.title
        ),
    )


def ticket_transitioned(
    tx: Tx, ticket: Ticket, move: Move, initiated_by: str, reason: str, from_column: str = "", to_column: str = ""
) -> None:
    _ticket(
        tx,
        ticket,
        pb.TicketTransitioned(
            ticket_id=ticket.id,
            project_id=ticket.project_id,
            from_status=move.from_status,
            to_status=move.to_status,
            from_phase=move.from_phase,
            to_phase=move.to_phase,
            initiated_by=initiated_by,
            reason=reason,
            from_column=from_column,
            to_column=to_column,
            title=ticket.title,
        ),
    )


def ticket_approval_changed(tx: Tx, ticket: Ticket, decided_by: str, *, deleted: bool = False) -> None:
    _ticket(
        tx,
        ticket,
        pb.TicketApprovalChanged(
            ticket_id=ticket.id,
            project_id=ticket.project_id,
            approval_status=ticket.approval_status,
            decided_by=decided_by,
            reason=ticket.rejection_reason or "",
            deadline_at=_time(ticket.approval_deadline_at),
            deleted=deleted,
        ),
    )


def workflow_result_submitted(tx: Tx, ticket: Ticket, result_id: str, agent_id: str) -> None:
    _ticket(
        tx,
        ticket,
        pb.WorkflowResultSubmitted(
            result_id=result_id, workflow_id=ticket.id, project_id=ticket.project_id, agent_id=agent_id
        ),
    )


def workflow_result_validated(tx: Tx, ticket: Ticket, result_id: str, passed: bool, validated_by: str) -> None:
    _ticket(
        tx,
        ticket,
        pb.WorkflowResultValidated(
            result_id=result_id,
            workflow_id=ticket.id,
            project_id=ticket.project_id,
            passed=passed,
            validated_by=validated_by,
        ),
    )


def ticket_blocked(tx: Tx, ticket: Ticket, suggested_remediation: str, initiated_by: str) -> None:
    _ticket(
        tx,
        ticket,
        pb.TicketBlocked(
            ticket_id=ticket.id,
            project_id=ticket.project_id,
            blocker_type=ticket.blocked_reason or "",
            suggested_remediation=suggested_remediation,
            status=ticket.status,
            phase_id=ticket.phase_id,
            initiated_by=initiated_by,
        ),
    )


def ticket_unblocked(tx: Tx, ticket: Ticket, previous_blocker: str, initiated_by: str) -> None:
    _ticket(
        tx,
        ticket,
        pb.TicketUnblocked(
            ticket_id=ticket.id,
            project_id=ticket.project_id,
            previous_blocker=previous_blocker,
            status=ticket.status,
            phase_id=ticket.phase_id,
            initiated_by=initiated_by,
        ),
    )


def _task(tx: Tx, task: TaskLike, message: Any) -> None:
    tx.emit(message, aggregate_id=task.id, version=task.version, organization_id=task.organization_id)


def task_created(tx: Tx, task: TaskLike, description: str | None) -> None:
    _task(tx, task, pb.TaskCreated(task=reference(task), description=description or ""))


def task_updated(tx: Tx, task: TaskLike, changes: Mapping[str, Any]) -> None:
    _task(tx, task, pb.TaskUpdated(task=reference(task), changes_json=_json(changes)))


def tasks_ready(tx: Tx, tasks: Iterable[TaskLike]) -> None:
    """A hint to waiting claims, packed by organization."""
    by_organization: dict[str, list[pb.TaskReference]] = {}
    for task in tasks:
        by_organization.setdefault(task.organization_id, []).append(reference(task))
    for organization_id, references in sorted(by_organization.items()):
        for start in range(0, len(references), PACK):
            tx.emit(
                pb.TasksReady(tasks=references[start : start + PACK]),
                aggregate_id=organization_id,
                organization_id=organization_id,
            )


def task_assigned(tx: Tx, task: TaskLike, agent_id: str, sandbox_id: str, attempt: int) -> None:
    _task(
        tx,
        task,
        pb.TaskAssigned(task=reference(task, "pending"), agent_id=agent_id, sandbox_id=sandbox_id, attempt=attempt),
    )


def task_started(tx: Tx, task: TaskLike, agent_id: str, sandbox_id: str, attempt: int) -> None:
    _task(
        tx,
        task,
        pb.TaskStarted(task=reference(task, "assigned"), agent_id=agent_id, sandbox_id=sandbox_id, attempt=attempt),
    )


def task_completed(
    tx: Tx,
    task: TaskLike,
    old_status: str,
    agent_id: str,
    sandbox_id: str,
    attempt: int,
    head_sha: str,
    has_result: bool,
) -> None:
    _task(
        tx,
        task,
        pb.TaskCompleted(
            task=reference(task, old_status),
            agent_id=agent_id,
            sandbox_id=sandbox_id,
            attempt=attempt,
            head_sha=head_sha,
            has_result=has_result,
        ),
    )


def task_failed(
    tx: Tx, task: TaskLike, old_status: str, sandbox_id: str, attempt: int, error_message: str, failed_by: str
) -> None:
    _task(
        tx,
        task,
        pb.TaskFailed(
            task=reference(task, old_status),
            sandbox_id=sandbox_id,
            attempt=attempt,
            error_message=error_message,
            failed_by=failed_by,
        ),
    )


def task_retry_scheduled(
    tx: Tx,
    task: TaskLike,
    old_status: str,
    sandbox_id: str,
    attempt: int,
    retry_count: int,
    max_retries: int,
    retry_at: datetime | None,
    error_message: str,
) -> None:
    _task(
        tx,
        task,
        pb.TaskRetryScheduled(
            task=reference(task, old_status),
            sandbox_id=sandbox_id,
            attempt=attempt,
            retry_count=retry_count,
            max_retries=max_retries,
            retry_at=_time(retry_at),
            error_message=error_message,
        ),
    )


def task_requeued(
    tx: Tx, task: TaskLike, old_status: str, agent_id: str, sandbox_id: str, attempt: int, reason: str
) -> None:
    _task(
        tx,
        task,
        pb.TaskRequeued(
            task=reference(task, old_status),
            agent_id=agent_id,
            sandbox_id=sandbox_id,
            attempt=attempt,
            reason=reason,
        ),
    )


def task_cancelled(tx: Tx, task: TaskLike, old_status: str, sandbox_id: str, attempt: int, reason: str) -> None:
    _task(
        tx,
        task,
        pb.TaskCancelled(task=reference(task, old_status), sandbox_id=sandbox_id, attempt=attempt, reason=reason),
    )


def task_dependencies_changed(
    tx: Tx, task: TaskLike, depends_on: Sequence[str], added: Sequence[str], removed: Sequence[str]
) -> None:
    _task(
        tx,
        task,
        pb.TaskDependenciesChanged(task=reference(task), depends_on=depends_on, added=added, removed=removed),
    )


def task_merge_changed(
    tx: Tx, task: TaskLike, merge_state: str, merge_id: str | None, resolution_task_id: str | None
) -> None:
    _task(
        tx,
        task,
        pb.TaskMergeChanged(
            task=reference(task),
            merge_state=merge_state,
            merge_id=merge_id or "",
            resolution_task_id=resolution_task_id or "",
        ),
    )


def result_submitted(tx: Tx, task: TaskLike, result_id: str, agent_id: str, result_type: str) -> None:
    _task(
        tx,
        task,
        pb.TaskResultSubmitted(task=reference(task), result_id=result_id, agent_id=agent_id, result_type=result_type),
    )
