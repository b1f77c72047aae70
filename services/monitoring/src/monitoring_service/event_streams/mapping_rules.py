"""Which public frames an event becomes: the names that the web client and other readers filter on.

One table: subject → the frames. The names and payload keys are the public contract; several facts are told under two
names because clients filter on either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from monitoring_service.event_streams.frame_rules import Frame
from monitoring_service.event_streams.payload_rules import parsed, payload_of, sandbox_payload

Body = Any
Text = Callable[[Body], str]


@dataclass(frozen=True, slots=True)
class Kind:
    """One frame of an event: its name, what it is about, who may read it, when it is told and what it adds."""

    name: str | Text
    entity_type: str
    entity_id: Text
    permission: str
    when: Callable[[Body], bool] = lambda _body: True
    adds: Callable[[Body], dict[str, Any]] = lambda _body: {}


def _task(
    name: str,
    when: Callable[[Body], bool] = lambda _b: True,
    adds: Callable[[Body], dict[str, Any]] = lambda _b: {},
) -> Kind:
    return Kind(name, "task", lambda b: b.task.task_id, "task:read", when, adds)


def _conversation(body: Body) -> dict[str, Any]:
    changes = parsed(body.changes_json)
    known = changes.get("conversation_id") if isinstance(changes, dict) else None
    return {"conversation_id": known} if known else {}


def _timed_out(body: Body) -> bool:
    # A retry names no cause of its own; its message is workflow's, see `time_out` of the queue.
    return bool(body.error_message.startswith("The task timed out:"))


def _ticket_title(body: Body) -> dict[str, Any]:
    title = getattr(body, "title", "")
    return {"ticket_title": title} if title else {}


def _ticket(
    name: str,
    when: Callable[[Body], bool] = lambda _b: True,
    adds: Callable[[Body], dict[str, Any]] = lambda _b: {},
) -> Kind:
    return Kind(name, "ticket", lambda b: b.ticket_id, "ticket:read", when, lambda b: _ticket_title(b) | adds(b))


def _workflow_result(name: str) -> Kind:
    return Kind(name, "ticket", lambda b: b.workflow_id, "ticket:read")


def _project(name: str, permission: str = "project:read") -> Kind:
    return Kind(name, "project", lambda b: b.project_id, permission)


def _spec(name: str | Text, adds: Callable[[Body], dict[str, Any]] = lambda _b: {}) -> Kind:
    return Kind(name, "spec", lambda b: b.spec_id, "document:read", adds=adds)


def _agent(
    name: str,
    when: Callable[[Body], bool] = lambda _b: True,
    adds: Callable[[Body], dict[str, Any]] = lambda _b: {},
) -> Kind:
    return Kind(name, "agent", lambda b: b.agent_id, "agent:read", when, adds)


def _sandbox(name: str, when: Callable[[Body], bool] = lambda _b: True) -> Kind:
    return Kind(name, "sandbox", lambda b: b.sandbox_id, "agent:read", when)


def _branch(name: str) -> Kind:
    return Kind(name, "task", lambda b: b.task_id, "project:read")


def _reservation(name: str) -> Kind:
    return Kind(name, "reservation", lambda b: b.reservation_id, "billing:read")


def _organization(name: str) -> Kind:
    return Kind(name, "organization", lambda b: b.organization_id, "org:read")


def _invitation(name: str) -> Kind:
    return Kind(name, "invitation", lambda b: b.invitation_id, "org:members:read")


def _anomaly(name: str) -> Kind:
    return Kind(name, "anomaly", lambda b: b.anomaly_id, "monitor:read")


def _alert(name: str, adds: Callable[[Body], dict[str, Any]] = lambda _b: {}) -> Kind:
    return Kind(name, "alert", lambda b: b.alert_id, "monitor:read", adds=adds)


def _status_moved(body: Body) -> bool:
    return bool(body.from_status != body.to_status)


def _phase_moved(body: Body) -> bool:
    return bool(body.from_phase != body.to_phase)


_OUTCOMES = {"completed": "SPEC_EXECUTION_COMPLETED", "failed": "SPEC_EXECUTION_FAILED"}

_APPROVALS = {
    "pending_review": "TICKET_APPROVAL_PENDING",
    "approved": "TICKET_APPROVED",
    "rejected": "TICKET_REJECTED",
    "timed_out": "TICKET_TIMED_OUT",
}

KINDS: dict[str, tuple[Kind, ...]] = {
    "identity.organization.created.v1": (_organization("organization.created"),),
    "identity.organization.updated.v1": (_organization("organization.updated"),),
    "identity.invitation.sent.v1": (_invitation("organization.invitation_sent"),),
    "identity.invitation.accepted.v1": (_invitation("organization.invitation_accepted"),),
    "identity.invitation.closed.v1": (_invitation("organization.invitation_closed"),),
    "workflow.project.created.v1": (_project("PROJECT_CREATED"),),
    "workflow.project.updated.v1": (_project("PROJECT_UPDATED"),),
    "workflow.project.archived.v1": (_project("PROJECT_ARCHIVED"),),
    "workflow.spec.created.v1": (_spec("SPEC_CREATED"),),
    "workflow.spec.updated.v1": (_spec("SPEC_UPDATED"),),
    "workflow.execution.started.v1": (_spec("SPEC_EXECUTION_STARTED", lambda b: {"tasks_created": b.tasks}),),
    "workflow.execution.paused.v1": (_spec("SPEC_EXECUTION_PAUSED"),),
    "workflow.execution.resumed.v1": (_spec("SPEC_EXECUTION_RESUMED"),),
    "workflow.execution.finished.v1": (_spec(lambda b: _OUTCOMES.get(b.outcome, "SPEC_EXECUTION_CANCELLED")),),
    "workflow.ticket.created.v1": (_ticket("TICKET_CREATED"),),
    "workflow.ticket.updated.v1": (_ticket("TICKET_UPDATED"),),
    "workflow.ticket.transitioned.v1": (
        _ticket("ticket.status_transitioned", _status_moved),
        _ticket("TICKET_STATUS_CHANGED", _status_moved),
        _ticket("ticket.phase_transitioned", _phase_moved),
        _ticket("TICKET_PHASE_ADVANCED", _phase_moved, lambda b: {"old_phase": b.from_phase, "new_phase": b.to_phase}),
        _ticket("board.ticket_moved", lambda b: bool(b.to_column), lambda b: {"new_column": b.to_column}),
    ),
    "workflow.ticket.blocked.v1": (_ticket("ticket.blocked"), _ticket("TICKET_BLOCKED")),
    "workflow.ticket.unblocked.v1": (_ticket("ticket.unblocked"), _ticket("TICKET_UNBLOCKED")),
    "workflow.ticket.approval_changed.v1": (
        Kind(
            lambda b: _APPROVALS.get(b.approval_status, "TICKET_APPROVAL_CHANGED"),
            "ticket",
            lambda b: b.ticket_id,
            "ticket:read",
        ),
    ),
    "workflow.workflow_result.submitted.v1": (_workflow_result("result.workflow.submitted"),),
    "workflow.workflow_result.validated.v1": (_workflow_result("result.workflow.validated"),),
    "workflow.task.created.v1": (_task("TASK_CREATED"),),
    "workflow.task.updated.v1": (
        _task("TASK_UPDATED"),
        _task("CONVERSATION_REGISTERED", lambda b: bool(_conversation(b)), _conversation),
    ),
    "workflow.task.assigned.v1": (_task("TASK_ASSIGNED"), _task("TASK_SANDBOX_ASSIGNED")),
    "workflow.task.started.v1": (_task("TASK_STARTED"),),
    "workflow.task.completed.v1": (_task("TASK_COMPLETED"),),
    "workflow.task.failed.v1": (
        _task("TASK_FAILED"),
        _task("TASK_PERMANENTLY_FAILED"),
        _task("TASK_TIMED_OUT", _timed_out),
    ),
    "workflow.task.retry_scheduled.v1": (
        _task("TASK_RETRY_SCHEDULED"),
        _task("TASK_STATUS_CHANGED"),
        _task("TASK_TIMED_OUT", _timed_out),
    ),
    "workflow.task.requeued.v1": (_task("TASK_STATUS_CHANGED"),),
    "workflow.task.cancelled.v1": (_task("TASK_CANCELLED"),),
    "workflow.task.dependencies_changed.v1": (_task("TASK_DEPENDENCY_UPDATED"),),
    "workflow.task.merge_changed.v1": (_task("TASK_MERGE_CHANGED"),),
    "workflow.result.submitted.v1": (_task("result.task.submitted"),),
    "agents.agent.registered.v1": (_agent("AGENT_REGISTERED"),),
    "agents.agent.updated.v1": (
        _agent(
            "AGENT_STATUS_CHANGED",
            lambda b: b.status != b.old_status,
            lambda b: {"previous_status": b.old_status, "new_status": b.status},
        ),
        _agent("agent.capability.updated", lambda b: b.status == b.old_status),
    ),
    "agents.agent.went_stale.v1": (
        _agent(
            "HEARTBEAT_MISSED",
            adds=lambda b: {
                "missed_count": b.missed_heartbeats,
                "escalation_level": {1: "warn", 2: "degraded"}.get(b.missed_heartbeats, "unresponsive"),
                "action": {1: "log_warning", 2: "mark_degraded"}.get(b.missed_heartbeats, "mark_failed"),
            },
        ),
    ),
    "agents.agent.recovered.v1": (_agent("HEARTBEAT_RECEIVED"),),
    "agents.sandbox.started.v1": (_sandbox("SANDBOX_SPAWNED"), _sandbox("sandbox.spawned")),
    "agents.sandbox.ended.v1": (
        _sandbox("SANDBOX_COMPLETED", lambda b: b.reason == "completed"),
        _sandbox("sandbox.failed", lambda b: b.reason == "failed"),
        _sandbox("sandbox.terminated"),
    ),
    "agents.sandbox.message_queued.v1": (
        Kind(
            "SANDBOX_MESSAGE_QUEUED",
            "sandbox",
            lambda b: b.sandbox_id,
            "agent:read",
            adds=lambda b: {"priority": "high" if b.message_type == "interrupt" else "normal"},
        ),
    ),
    "billing.account.created.v1": (
        Kind("billing.account.created", "billing_account", lambda b: b.account_id, "billing:read"),
    ),
    "billing.reservation.held.v1": (_reservation("billing.reservation.held"),),
    "billing.reservation.confirmed.v1": (_reservation("billing.reservation.confirmed"),),
    "billing.reservation.settled.v1": (_reservation("billing.reservation.settled"),),
    "billing.reservation.released.v1": (_reservation("billing.reservation.released"),),
    "billing.limit.reached.v1": (
        Kind(
            lambda b: "cost.budget.exceeded" if b.limit == "budget" else "billing.limit.reached",
            "billing_account",
            lambda b: b.account_id,
            "billing:read",
        ),
    ),
    "vcs.repository.ready.v1": (_project("repository.ready"),),
    "vcs.repository.failed.v1": (_project("repository.failed"),),
    "vcs.branch.started.v1": (_branch("branch.started"),),
    "vcs.branch.finished.v1": (_branch("branch.finished"),),
    "vcs.branch.merged.v1": (_branch("branch.merged"),),
    "vcs.branch.conflicted.v1": (_branch("branch.conflicted"),),
    "vcs.merge.finished.v1": (Kind("coordination.merge.completed", "merge", lambda b: b.merge_id, "project:read"),),
    "monitoring.anomaly.detected.v1": (_anomaly("monitor.anomaly.detected"),),
    "monitoring.anomaly.acknowledged.v1": (_anomaly("monitor.anomaly.acknowledged"),),
    "monitoring.anomaly.resolved.v1": (_anomaly("monitor.anomaly.resolved"),),
    "monitoring.alert.triggered.v1": (_alert("alert.triggered", lambda b: {"value": b.current_value}),),
    "monitoring.alert.acknowledged.v1": (_alert("alert.acknowledged"),),
    "monitoring.alert.resolved.v1": (_alert("alert.resolved"),),
}

SILENT: dict[str, str] = {
    "identity.user.registered.v1": "belongs to no organization",
    "identity.user.updated.v1": "belongs to no organization",
    "identity.user.deleted.v1": "belongs to no organization",
    "identity.session.replayed.v1": "belongs to no organization",
    "identity.membership.changed.v1": "permissions are nobody's news",
    "identity.principal.revoked.v1": "belongs to no organization",
    "identity.signing_key.rotated.v1": "belongs to no organization",
    "workflow.tasks.ready.v1": "a hint between services; the tasks' own events tell the fact",
    "workflow.execution.restated.v1": "an answer between services; the end itself was told when it came",
    "billing.account.changed.v1": "usage is told by its costs; the plan is read where it is shown",
    "billing.reservation.unsettled.v1": "a question between services",
    "agents.sandbox.lifecycle_reported.v1": "told by the sandbox's recorded events already",
    "agents.usage.recorded.v1": "told by billing once it is priced",
}
"""Events that become no frame, each with the reason."""

PACKED = ("agents.sandbox.events_recorded.v1", "billing.costs.recorded.v1", "vcs.commits.linked.v1")

# What the board reacts to beside the names with the prefix.
_ALSO_BARE = frozenset({"agent.started", "agent.completed"})


def frames_of(subject: str, body: Body, moment: datetime) -> Sequence[Frame]:
    """The frames of an event in their order; the same event always has the same number of them."""
    packed = _PACKED.get(subject)
    if packed is not None:
        return packed(body, moment)
    return [_frame(kind, body, moment) for kind in KINDS.get(subject, ()) if kind.when(body)]


def _frame(kind: Kind, body: Body, moment: datetime) -> Frame:
    name = kind.name if isinstance(kind.name, str) else kind.name(body)
    return Frame(
        name,
        kind.entity_type,
        kind.entity_id(body),
        project_of(body),
        kind.permission,
        lambda: payload_of(body, moment, **kind.adds(body)),
    )


def project_of(body: Body) -> str:
    """The project an event belongs to; empty where it has none."""
    task = getattr(body, "task", None)
    project: str = getattr(body if task is None else task, "project_id", "")
    return project


def _sandbox_frames(body: Body, moment: datetime) -> Sequence[Frame]:
    found: list[Frame] = []
    for event in body.events:
        found.append(_sandbox_frame(f"SANDBOX_{event.event_type}", "sandbox", body.sandbox_id, body, event, moment))
        if event.event_type in _ALSO_BARE:
            found.append(_sandbox_frame(event.event_type, "task", body.task_id, body, event, moment))
    return found


def _sandbox_frame(name: str, entity_type: str, entity_id: str, body: Body, event: Any, moment: datetime) -> Frame:
    return Frame(
        name, entity_type, entity_id, body.project_id, "agent:read", lambda: sandbox_payload(body, event, moment)
    )


def _cost_frames(body: Body, moment: datetime) -> Sequence[Frame]:
    return [_cost_frame(entry, moment) for entry in body.entries]


def _cost_frame(entry: Any, moment: datetime) -> Frame:
    return Frame(
        "cost.recorded",
        "cost_record",
        entry.cost_id,
        entry.project_id,
        "billing:read",
        lambda: payload_of(entry, moment, total_cost=entry.micro_usd / 1_000_000),
    )


def _commit_frames(body: Body, moment: datetime) -> Sequence[Frame]:
    return [_commit_frame(body.project_id, commit, moment) for commit in body.commits]


def _commit_frame(project_id: str, commit: Any, moment: datetime) -> Frame:
    return Frame(
        "COMMIT_LINKED",
        "commit",
        commit.sha,
        project_id,
        "ticket:read",
        lambda: payload_of(commit, moment, commit_sha=commit.sha, project_id=project_id),
    )


_PACKED = dict(zip(PACKED, (_sandbox_frames, _cost_frames, _commit_frames), strict=True))
