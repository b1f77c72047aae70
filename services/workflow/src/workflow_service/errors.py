"""Every error this service answers by code."""

from __future__ import annotations

from servicekit.errors import ErrorSpec, Kind

ORGANIZATION_NOT_FOUND = ErrorSpec(
    "workflow.organization_not_found", Kind.NOT_FOUND, "This organization does not exist."
)
PROJECT_NOT_FOUND = ErrorSpec("workflow.project_not_found", Kind.NOT_FOUND, "This project does not exist.")
PROJECT_NAME_TAKEN = ErrorSpec(
    "workflow.project_name_taken", Kind.CONFLICT, "A project of this name exists in the organization."
)
PROJECT_ARCHIVED = ErrorSpec("workflow.project_archived", Kind.CONFLICT, "The project is archived.")

SPEC_NOT_FOUND = ErrorSpec("workflow.spec_not_found", Kind.NOT_FOUND, "This spec does not exist.")
SPEC_ARCHIVED = ErrorSpec("workflow.spec_archived", Kind.CONFLICT, "The spec is archived.")
SPEC_EXECUTING = ErrorSpec("workflow.spec_executing", Kind.CONFLICT, "The spec is being executed.")
REQUIREMENT_NOT_FOUND = ErrorSpec("workflow.requirement_not_found", Kind.NOT_FOUND, "This requirement does not exist.")
CRITERION_NOT_FOUND = ErrorSpec("workflow.criterion_not_found", Kind.NOT_FOUND, "This criterion does not exist.")
SPEC_TASK_NOT_FOUND = ErrorSpec("workflow.spec_task_not_found", Kind.NOT_FOUND, "This task of the spec does not exist.")
REQUIREMENTS_NOT_APPROVED = ErrorSpec(
    "workflow.requirements_not_approved", Kind.REFUSED, "The requirements are not approved yet."
)
DESIGN_NOT_APPROVED = ErrorSpec("workflow.design_not_approved", Kind.REFUSED, "The design is not approved yet.")
NOTHING_TO_APPROVE = ErrorSpec("workflow.nothing_to_approve", Kind.REFUSED, "There is nothing to approve.")
NOTHING_TO_EXECUTE = ErrorSpec("workflow.nothing_to_execute", Kind.CONFLICT, "The spec has no task left to execute.")
REPOSITORY_NOT_READY = ErrorSpec(
    "workflow.repository_not_ready", Kind.CONFLICT, "The project's repository is not ready.", 2.0
)
# What billing decides is answered as it says it.
LIMIT_REACHED = ErrorSpec("billing.limit_reached", Kind.PAYMENT_REQUIRED, "The plan does not allow another execution.")
NOT_EXECUTING = ErrorSpec("workflow.not_executing", Kind.CONFLICT, "The spec is not being executed.")

TICKET_NOT_FOUND = ErrorSpec("workflow.ticket_not_found", Kind.NOT_FOUND, "This ticket does not exist.")
TICKET_NOT_PENDING = ErrorSpec("workflow.ticket_not_pending", Kind.REFUSED, "The ticket does not wait for an approval.")
OWN_APPROVAL = ErrorSpec(
    "workflow.own_approval",
    Kind.FORBIDDEN,
    "Who asked for a ticket does not approve it where the organization has another admin or owner.",
)
TRANSITION_REFUSED = ErrorSpec("workflow.transition_refused", Kind.REFUSED, "The ticket may not move there.")
TICKET_NOT_APPROVED = ErrorSpec(
    "workflow.ticket_not_approved", Kind.CONFLICT, "The ticket is not approved, so it may not have work."
)

PHASE_NOT_FOUND = ErrorSpec("workflow.phase_not_found", Kind.NOT_FOUND, "This phase does not exist.")
COLUMN_NOT_FOUND = ErrorSpec("workflow.column_not_found", Kind.REFUSED, "This column does not exist.")
WIP_LIMIT_REACHED = ErrorSpec("workflow.wip_limit_reached", Kind.REFUSED, "The column is full.")
BOARD_COLUMN_NOT_FOUND = ErrorSpec("workflow.board_column_not_found", Kind.NOT_FOUND, "No column shows this phase.")

TASK_NOT_FOUND = ErrorSpec("workflow.task_not_found", Kind.NOT_FOUND, "This task does not exist.")
TASK_NOT_CANCELLABLE = ErrorSpec("workflow.task_not_cancellable", Kind.NOT_FOUND, "The task has ended already.")
TASK_ENDED = ErrorSpec("workflow.task_ended", Kind.REFUSED, "The task has ended already.")
TASK_TRANSITION_REFUSED = ErrorSpec("workflow.task_transition_refused", Kind.REFUSED, "The task may not move there.")
TASK_NOT_RETRYABLE = ErrorSpec(
    "workflow.task_not_retryable", Kind.CONFLICT, "Only a failed or cancelled task can be tried again."
)
EXECUTION_ENDED = ErrorSpec(
    "workflow.execution_ended", Kind.CONFLICT, "The execution of this task has ended; execute the spec again."
)
DEPENDENCY_CYCLE = ErrorSpec("workflow.dependency_cycle", Kind.REFUSED, "The dependencies would form a cycle.")
DEPENDENCY_NOT_FOUND = ErrorSpec("workflow.dependency_not_found", Kind.NOT_FOUND, "A dependency does not exist.")
NO_DEPENDENCIES = ErrorSpec("workflow.no_dependencies", Kind.REFUSED, "The task depends on nothing.")
DEPENDENCIES_FIXED = ErrorSpec(
    "workflow.dependencies_fixed", Kind.CONFLICT, "The task has begun or ended; its dependencies cannot change."
)
ATTEMPT_SUPERSEDED = ErrorSpec(
    "workflow.attempt_superseded", Kind.REFUSED, "This attempt does not hold the task any more."
)

RESULT_NOT_FOUND = ErrorSpec("workflow.result_not_found", Kind.NOT_FOUND, "This result does not exist.")
RESULT_DECIDED = ErrorSpec("workflow.result_decided", Kind.CONFLICT, "This result has been decided already.")
NOT_THE_TASKS_AGENT = ErrorSpec("workflow.not_the_tasks_agent", Kind.REFUSED, "The task is not assigned to this agent.")

ERRORS = tuple(value for value in list(globals().values()) if isinstance(value, ErrorSpec))
