"""Calls of workflow's operations."""

from __future__ import annotations

from tests.e2e.access.recipe import Recipe, Scope

# A sandbox works for its own task: what it may read and report is told by that task.
OWN_TASK = frozenset({"agent", "sandbox"})

PROJECTS = {
    "projects.create_project": Recipe(body={"organization_id": "{organization_id}", "name": "Project {unique}"}),
    "projects.list_projects": Recipe(scope=Scope.LISTS),
    "projects.get_project": Recipe(),
    "projects.update_project": Recipe(path={"project_id": "{spare_project_id}"}, body={"description": "changed"}),
    "projects.archive_project": Recipe(path={"project_id": "{spare_project_id}"}),
    "projects.get_project_stats": Recipe(),
}
SPECS = {
    "specs.create_spec": Recipe(body={"project_id": "{project_id}", "title": "Another"}),
    "specs.list_project_specs": Recipe(),
    "specs.get_spec": Recipe(),
    "specs.update_spec": Recipe(body={"description": "changed"}),
    "specs.archive_spec": Recipe(),
    "specs.list_spec_versions": Recipe(),
    "specs.get_phase_data": Recipe(),
    "specs.execute_spec": Recipe(),
    "specs.execute_spec_tasks": Recipe(),
    "specs.pause_spec": Recipe(path={"spec_id": "{executing_spec_id}"}, body={"reason": "lunch"}),
    "specs.resume_spec": Recipe(path={"spec_id": "{paused_spec_id}"}),
    "specs.cancel_spec": Recipe(path={"spec_id": "{executing_spec_id}"}, body={"reason": "enough"}),
    "specs.get_execution_status": Recipe(),
    "specs.add_requirement": Recipe(body={"title": "New", "condition": "it is asked", "action": "answer"}),
    "specs.update_requirement": Recipe(body={"title": "Changed"}),
    "specs.delete_requirement": Recipe(),
    "specs.add_criterion": Recipe(body={"text": "New"}),
    "specs.update_criterion": Recipe(body={"completed": True}),
    "specs.delete_criterion": Recipe(),
    "specs.get_criteria_status": Recipe(),
    "specs.set_design": Recipe(
        body={"architecture": "changed", "api_spec": [{"method": "GET", "endpoint": "/", "description": "all"}]}
    ),
    "specs.approve_requirements": Recipe(),
    "specs.approve_design": Recipe(),
    "specs.list_spec_tasks": Recipe(),
    "specs.add_spec_task": Recipe(body={"title": "New"}),
    "specs.update_spec_task": Recipe(path={"task_id": "{spec_task_id}"}, body={"title": "Changed"}),
    "specs.delete_spec_task": Recipe(path={"spec_id": "{loose_spec_id}", "task_id": "{loose_spec_task_id}"}),
    "specs.link_tickets": Recipe(body={"ticket_ids": ["{free_ticket_id}"]}),
    "specs.unlink_tickets": Recipe(body={"ticket_ids": ["{spec_ticket_id}"]}),
    "specs.list_linked_tickets": Recipe(),
}
RESULTS = {
    "results.report_results": Recipe(
        body={
            "task_id": "{sandbox_task_id}",
            "markdown_file_path": "report.md",
            "result_type": "test",
            "summary": "all passed",
        },
        by="sandbox",
        machines=OWN_TASK,
    ),
    "results.submit_result": Recipe(
        body={"workflow_id": "{sandbox_ticket_id}", "markdown_file_path": "result.md"}, machines=OWN_TASK
    ),
    "results.validate_result": Recipe(
        body={"result_id": "{result_id}", "validation_passed": False, "feedback": "not yet"}
    ),
    "results.list_workflow_results": Recipe(path={"workflow_id": "{sandbox_ticket_id}"}, machines=OWN_TASK),
    "results.list_task_results": Recipe(path={"task_id": "{sandbox_task_id}"}, machines=OWN_TASK),
}
BOARD = {
    "board.view_board": Recipe(query={"project_id": "{project_id}"}),
    # What other tests moved may have filled the column.
    "board.move_ticket": Recipe(body={"ticket_id": "{ticket_id}", "target_column_id": "analyzing", "force": True}),
    "board.get_board_stats": Recipe(query={"project_id": "{project_id}"}),
    "board.list_wip_violations": Recipe(query={"project_id": "{project_id}"}),
    "board.auto_transition_ticket": Recipe(),
    "board.get_column_of_phase": Recipe(path={"phase_id": "PHASE_TESTING"}, scope=Scope.ONESELF),
}
GRAPH = {
    "graph.get_project_graph": Recipe(),
    "graph.get_ticket_graph": Recipe(),
    "graph.list_blocked_tasks": Recipe(),
    "graph.list_blocking_tasks": Recipe(),
}
TICKETS = {
    "tickets.list_tickets": Recipe(scope=Scope.LISTS, machines=OWN_TASK),
    "tickets.list_tickets_alias": Recipe(scope=Scope.LISTS, machines=OWN_TASK),
    "tickets.create_ticket": Recipe(
        body={
            "title": "Ticket {unique}",
            "description": "Number {unique}",
            "project_id": "{project_id}",
            "dependencies": {"blocked_by": []},
        }
    ),
    "tickets.check_duplicate_tickets": Recipe(body={"title": "One", "project_id": "{project_id}"}),
    "tickets.approve_ticket": Recipe(body={"ticket_id": "{pending_ticket_id}"}),
    "tickets.reject_ticket": Recipe(body={"ticket_id": "{pending_ticket_id}", "rejection_reason": "no"}),
    "tickets.count_pending_reviews": Recipe(scope=Scope.LISTS),
    "tickets.get_approval_status": Recipe(query={"ticket_id": "{ticket_id}"}),
    "tickets.get_ticket": Recipe(path={"ticket_id": "{sandbox_ticket_id}"}, machines=OWN_TASK),
    "tickets.update_ticket": Recipe(body={"description": "changed"}),
    "tickets.get_ticket_context": Recipe(path={"ticket_id": "{sandbox_ticket_id}"}, machines=OWN_TASK),
    "tickets.transition_ticket": Recipe(body={"to_status": "analyzing"}),
    "tickets.block_ticket": Recipe(query={"blocker_type": "dependency"}),
    "tickets.unblock_ticket": Recipe(path={"ticket_id": "{blocked_ticket_id}"}),
    "tickets.regress_ticket": Recipe(path={"ticket_id": "{tested_ticket_id}"}, query={"to_status": "building"}),
    "tickets.progress_ticket": Recipe(),
}
PHASES = {
    "phases.list_phases": Recipe(scope=Scope.ONESELF),
    "phases.get_phase": Recipe(path={"phase_id": "PHASE_TESTING"}, scope=Scope.ONESELF),
    "phases.validate_gate": Recipe(),
    "phases.get_gate_status": Recipe(),
    "phases.add_artifact": Recipe(body={"phase_id": "PHASE_TESTING", "artifact_type": "test_results"}),
    "phases.transition_phase": Recipe(body={"to_phase": "PHASE_REQUIREMENTS", "force": True}),
    "phases.check_advance": Recipe(),
    "phases.fast_track_ticket": Recipe(),
    "phases.complete_ticket": Recipe(query={"force": "true"}),
    "phases.can_transition": Recipe(path={"to_phase": "PHASE_REQUIREMENTS"}),
    "phases.spawn_phase_tasks": Recipe(query={"phase_id": "PHASE_REQUIREMENTS"}),
}
TASKS = {
    "tasks.list_tasks": Recipe(scope=Scope.LISTS, machines=frozenset({"agent"})),
    "tasks.create_task": Recipe(
        body={
            "ticket_id": "{ticket_id}",
            "title": "New",
            "description": "new",
            "dependencies": {"depends_on": []},
            "execution_config": {"commands": ["true"]},
        }
    ),
    "tasks.list_timed_out_tasks": Recipe(scope=Scope.LISTS),
    "tasks.list_cancellable_tasks": Recipe(scope=Scope.LISTS),
    "tasks.clean_up_timed_out_tasks": Recipe(scope=Scope.LISTS),
    "tasks.get_task": Recipe(path={"task_id": "{sandbox_task_id}"}, machines=OWN_TASK),
    "tasks.update_task": Recipe(body={"description": "changed"}),
    "tasks.get_task_readiness": Recipe(),
    "tasks.cancel_task": Recipe(body={"reason": "enough"}),
    "tasks.fail_task": Recipe(body={"reason": "broken"}),
    "tasks.retry_task": Recipe(path={"task_id": "{failed_task_id}"}),
    "tasks.get_task_dependencies": Recipe(path={"task_id": "{sandbox_task_id}"}, machines=OWN_TASK),
    "tasks.check_circular_dependency": Recipe(body=["{earlier_task_id}"]),
    "tasks.add_task_dependencies": Recipe(body={"depends_on": ["{earlier_task_id}"]}),
    "tasks.set_task_dependencies": Recipe(body={"depends_on": ["{earlier_task_id}"]}),
    "tasks.remove_task_dependency": Recipe(
        path={"task_id": "{dependent_task_id}", "depends_on_task_id": "{dependency_task_id}"}
    ),
    "tasks.get_timeout_status": Recipe(),
    "tasks.set_task_timeout": Recipe(body={"timeout_seconds": 60}),
    "tasks.register_conversation": Recipe(
        path={"task_id": "{sandbox_task_id}"}, body={"conversation_id": "c-1"}, machines=OWN_TASK
    ),
}

RECIPES: dict[str, Recipe] = {**PROJECTS, **SPECS, **RESULTS, **BOARD, **GRAPH, **TICKETS, **PHASES, **TASKS}
