"""What workflow refuses because of the state of projects, specs, tickets and tasks."""

from __future__ import annotations

from tests.e2e.access.recipe import Recipe
from tests.e2e.access.refusals.refusal import Refusal

_BARE = {"spec_id": "{bare_spec_id}"}
_ARCHIVED = {"spec_id": "{archived_spec_id}"}
_PLANNED = {"spec_id": "{idle_spec_id}", "task_id": "{idle_spec_task_id}"}
_ENDED = {"task_id": "{ended_task_id}"}
_STOPPED = {"task_id": "{stopped_task_id}"}
_WAITING = {"task_id": "{later_task_id}"}
_FIRST = {"task_id": "{first_task_id}"}

PROJECTS = (
    Refusal(
        "projects.create_project",
        "workflow.project_name_taken",
        Recipe(body={"organization_id": "{organization_id}", "name": "{taken_name}"}),
    ),
    Refusal(
        "projects.update_project",
        "workflow.project_name_taken",
        Recipe(path={"project_id": "{spare_project_id}"}, body={"name": "{taken_name}"}),
    ),
    Refusal(
        "specs.create_spec",
        "workflow.project_archived",
        Recipe(body={"project_id": "{archived_project_id}", "title": "Late"}),
    ),
    Refusal(
        "tickets.create_ticket",
        "workflow.project_archived",
        Recipe(body={"project_id": "{archived_project_id}", "title": "Late", "description": "Late"}),
    ),
)
SPECS = (
    Refusal("specs.pause_spec", "workflow.not_executing", Recipe(path=_BARE, body={"reason": "lunch"})),
    Refusal("specs.resume_spec", "workflow.not_executing", Recipe(path=_BARE)),
    Refusal("specs.cancel_spec", "workflow.not_executing", Recipe(path=_BARE, body={"reason": "enough"})),
    Refusal(
        "specs.cancel_spec",
        "workflow.not_executing",
        Recipe(path={"spec_id": "{stopped_spec_id}"}, body={"reason": "twice"}),
    ),
    Refusal("specs.execute_spec", "workflow.nothing_to_execute", Recipe(path=_BARE)),
    Refusal("specs.execute_spec", "workflow.spec_archived", Recipe(path=_ARCHIVED)),
    # A task that waits to be made of it must not be made.
    Refusal("specs.execute_spec_tasks", "workflow.spec_archived", Recipe(path=_ARCHIVED)),
    Refusal("specs.execute_spec", "workflow.repository_not_ready", Recipe(path={"spec_id": "{unmirrored_spec_id}"})),
    Refusal(
        "specs.execute_spec_tasks", "workflow.repository_not_ready", Recipe(path={"spec_id": "{unmirrored_spec_id}"})
    ),
    Refusal(
        "specs.execute_spec",
        "billing.limit_reached",
        Recipe(path={"spec_id": "{unpaid_spec_id}"}),
        "{unpaid_token}",
        status=402,
    ),
    Refusal(
        "specs.execute_spec",
        "workflow.requirements_not_approved",
        Recipe(path={"spec_id": "{gated_spec_id}"}),
        status=400,
    ),
    Refusal(
        "specs.execute_spec_tasks",
        "workflow.design_not_approved",
        Recipe(path={"spec_id": "{gated_spec_id}"}),
        status=400,
    ),
    Refusal(
        "specs.approve_design",
        "workflow.requirements_not_approved",
        Recipe(path={"spec_id": "{gated_spec_id}"}),
        status=400,
    ),
    Refusal(
        "specs.approve_requirements",
        "workflow.nothing_to_approve",
        Recipe(path={"spec_id": "{empty_spec_id}"}),
        status=400,
    ),
    # A task of the queue was made of it.
    Refusal("specs.delete_spec_task", "workflow.spec_executing", Recipe(path=_PLANNED)),
)
TICKETS = (
    Refusal(
        "tickets.transition_ticket",
        "workflow.transition_refused",
        Recipe(path={"ticket_id": "{idle_ticket_id}"}, body={"to_status": "testing"}),
        status=400,
    ),
    Refusal(
        "tickets.regress_ticket",
        "workflow.transition_refused",
        Recipe(path={"ticket_id": "{idle_ticket_id}"}, query={"to_status": "building"}),
        status=400,
    ),
    Refusal(
        "tickets.approve_ticket",
        "workflow.ticket_not_pending",
        Recipe(body={"ticket_id": "{idle_ticket_id}"}),
        status=400,
    ),
    Refusal(
        "tickets.reject_ticket",
        "workflow.ticket_not_pending",
        Recipe(body={"ticket_id": "{idle_ticket_id}", "rejection_reason": "late"}),
        status=400,
    ),
    Refusal(
        "phases.transition_phase",
        "workflow.transition_refused",
        Recipe(path={"ticket_id": "{idle_ticket_id}"}, body={"to_phase": "PHASE_DEPLOYMENT"}),
        status=400,
    ),
    Refusal(
        "board.move_ticket",
        "workflow.wip_limit_reached",
        Recipe(body={"ticket_id": "{crowded_ticket_id}", "target_column_id": "analyzing"}),
        status=400,
    ),
    Refusal(
        "board.move_ticket",
        "workflow.transition_refused",
        Recipe(body={"ticket_id": "{idle_ticket_id}", "target_column_id": "deploying"}),
        status=400,
    ),
    Refusal(
        "results.validate_result",
        "workflow.result_decided",
        Recipe(body={"result_id": "{decided_result_id}", "validation_passed": True, "feedback": "after all"}),
    ),
)
TASKS = (
    Refusal(
        "tasks.create_task",
        "workflow.ticket_not_approved",
        Recipe(body={"ticket_id": "{pending_ticket_id}", "title": "Early", "description": "early"}),
    ),
    Refusal("tasks.retry_task", "workflow.task_not_retryable", Recipe(path=_FIRST)),
    Refusal("tasks.retry_task", "workflow.execution_ended", Recipe(path=_STOPPED)),
    Refusal("tasks.update_task", "workflow.execution_ended", Recipe(path=_STOPPED, body={"status": "pending"})),
    Refusal(
        "tasks.update_task",
        "workflow.task_transition_refused",
        Recipe(path=_ENDED, body={"status": "running"}),
        status=400,
    ),
    Refusal(
        "tasks.cancel_task",
        "workflow.task_not_cancellable",
        Recipe(path=_ENDED, body={"reason": "late"}),
        status=404,
    ),
    Refusal("tasks.fail_task", "workflow.task_ended", Recipe(path=_ENDED, body={"reason": "late"}), status=400),
    Refusal(
        "tasks.set_task_timeout", "workflow.task_ended", Recipe(path=_ENDED, body={"timeout_seconds": 60}), status=400
    ),
    Refusal(
        "tasks.add_task_dependencies",
        "workflow.dependencies_fixed",
        Recipe(path=_ENDED, body={"depends_on": ["{later_task_id}"]}),
    ),
    Refusal(
        "tasks.set_task_dependencies",
        "workflow.dependencies_fixed",
        Recipe(path=_ENDED, body={"depends_on": ["{later_task_id}"]}),
    ),
    Refusal(
        "tasks.remove_task_dependency",
        "workflow.dependencies_fixed",
        Recipe(path={"depends_on_task_id": "{first_task_id}", **_ENDED}),
    ),
    Refusal(
        "tasks.remove_task_dependency",
        "workflow.no_dependencies",
        Recipe(path={"depends_on_task_id": "{later_task_id}", **_FIRST}),
        status=400,
    ),
    Refusal(
        "tasks.add_task_dependencies",
        "workflow.dependency_cycle",
        Recipe(path=_FIRST, body={"depends_on": ["{later_task_id}"]}),
        status=400,
    ),
    Refusal(
        "tasks.set_task_dependencies",
        "workflow.dependency_cycle",
        Recipe(path=_WAITING, body={"depends_on": ["{later_task_id}"]}),
        status=400,
    ),
)
REFUSALS = (*PROJECTS, *SPECS, *TICKETS, *TASKS)
