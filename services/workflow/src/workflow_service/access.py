"""Who may do what: every operation, RPC and consumer of this service."""

from __future__ import annotations

from servicekit.auth import AGENTS, SANDBOXES, USERS, Access, AccessTable

WORKERS = USERS | AGENTS | SANDBOXES
_AGENTS = frozenset({"agents"})
_READERS = frozenset({"agents", "monitoring"})

PROJECTS = {
    "projects.create_project": Access("project:write"),
    "projects.list_projects": Access("project:read"),
    "projects.get_project": Access("project:read"),
    "projects.update_project": Access("project:write"),
    "projects.archive_project": Access("project:write"),
}
SPECS = {
    "specs.create_spec": Access("document:write"),
    "specs.list_project_specs": Access("document:read"),
    "specs.get_spec": Access("document:read"),
    "specs.update_spec": Access("document:write"),
    "specs.archive_spec": Access("document:write"),
    "specs.list_spec_versions": Access("document:read"),
    "specs.get_phase_data": Access("document:read"),
    "specs.execute_spec": Access("document:write"),
    "specs.execute_spec_tasks": Access("document:write"),
    "specs.pause_spec": Access("document:write"),
    "specs.resume_spec": Access("document:write"),
    "specs.cancel_spec": Access("document:write"),
    "specs.get_execution_status": Access("document:read"),
}

BOARD = {
    "projects.get_project_stats": Access("project:read"),
    "board.view_board": Access("ticket:read"),
    "board.move_ticket": Access("ticket:write"),
    "board.get_board_stats": Access("ticket:read"),
    "board.list_wip_violations": Access("ticket:read"),
    "board.auto_transition_ticket": Access("ticket:write"),
    "board.get_column_of_phase": Access(),
}
GRAPH = {
    "graph.get_project_graph": Access("ticket:read"),
    "graph.get_ticket_graph": Access("ticket:read"),
    "graph.list_blocked_tasks": Access("task:read"),
    "graph.list_blocking_tasks": Access("task:read"),
}
TICKETS = {
    "tickets.list_tickets": Access("ticket:read", principals=WORKERS),
    "tickets.list_tickets_alias": Access("ticket:read", principals=WORKERS),
    "tickets.create_ticket": Access("ticket:write"),
    "tickets.check_duplicate_tickets": Access("ticket:read"),
    "tickets.approve_ticket": Access("ticket:write"),
    "tickets.reject_ticket": Access("ticket:write"),
    "tickets.count_pending_reviews": Access("ticket:read"),
    "tickets.get_approval_status": Access("ticket:read"),
    "tickets.get_ticket": Access("ticket:read", principals=WORKERS),
    "tickets.update_ticket": Access("ticket:write"),
    "tickets.get_ticket_context": Access("ticket:read", principals=WORKERS),
    "tickets.transition_ticket": Access("ticket:write"),
    "tickets.block_ticket": Access("ticket:write"),
    "tickets.unblock_ticket": Access("ticket:write"),
    "tickets.regress_ticket": Access("ticket:write"),
    "tickets.progress_ticket": Access("ticket:write"),
}
PHASES = {
    "phases.list_phases": Access(),
    "phases.get_phase": Access(),
    "phases.validate_gate": Access("ticket:write"),
    "phases.get_gate_status": Access("ticket:read"),
    "phases.add_artifact": Access("ticket:write"),
    "phases.transition_phase": Access("ticket:write"),
    "phases.check_advance": Access("ticket:write"),
    "phases.fast_track_ticket": Access("ticket:write"),
    "phases.complete_ticket": Access("ticket:write"),
    "phases.can_transition": Access("ticket:read"),
    "phases.spawn_phase_tasks": Access("ticket:write"),
}
TASKS = {
    "tasks.list_tasks": Access("task:read", principals=USERS | AGENTS),
    "tasks.create_task": Access("task:write"),
    "tasks.list_timed_out_tasks": Access("task:read"),
    "tasks.list_cancellable_tasks": Access("task:read"),
    "tasks.clean_up_timed_out_tasks": Access("task:write"),
    "tasks.get_task": Access("task:read", principals=WORKERS),
    "tasks.update_task": Access("task:write"),
    "tasks.get_task_readiness": Access("task:read"),
    "tasks.cancel_task": Access("task:write"),
    "tasks.fail_task": Access("task:write"),
    "tasks.retry_task": Access("task:write"),
    "tasks.get_task_dependencies": Access("task:read", principals=WORKERS),
    "tasks.check_circular_dependency": Access("task:read"),
    "tasks.add_task_dependencies": Access("task:write"),
    "tasks.set_task_dependencies": Access("task:write"),
    "tasks.remove_task_dependency": Access("task:write"),
    "tasks.get_timeout_status": Access("task:read"),
    "tasks.set_task_timeout": Access("task:write"),
    "tasks.register_conversation": Access("task:write", principals=WORKERS),
}

SPEC_PARTS = {
    "specs.add_requirement": Access("document:write"),
    "specs.update_requirement": Access("document:write"),
    "specs.delete_requirement": Access("document:write"),
    "specs.add_criterion": Access("document:write"),
    "specs.update_criterion": Access("document:write"),
    "specs.delete_criterion": Access("document:write"),
    "specs.get_criteria_status": Access("document:read"),
    "specs.set_design": Access("document:write"),
    "specs.approve_requirements": Access("document:write"),
    "specs.approve_design": Access("document:write"),
    "specs.list_spec_tasks": Access("document:read"),
    "specs.add_spec_task": Access("document:write"),
    "specs.update_spec_task": Access("document:write"),
    "specs.delete_spec_task": Access("document:write"),
    "specs.link_tickets": Access("document:write"),
    "specs.unlink_tickets": Access("document:write"),
    "specs.list_linked_tickets": Access("document:read"),
}
RESULTS = {
    "results.report_results": Access("task:write", principals=WORKERS),
    "results.submit_result": Access("task:write", principals=WORKERS),
    "results.validate_result": Access("ticket:write"),
    "results.list_workflow_results": Access("ticket:read", principals=WORKERS),
    "results.list_task_results": Access("task:read", principals=WORKERS),
}

ACCESS = AccessTable(
    operations={**PROJECTS, **SPECS, **SPEC_PARTS, **RESULTS, **BOARD, **GRAPH, **TICKETS, **PHASES, **TASKS},
    rpcs={
        "ClaimTasks": _AGENTS,
        "StartTasks": _AGENTS,
        "HeartbeatTasks": _AGENTS,
        "CompleteTask": _AGENTS,
        "FailTask": _AGENTS,
        "ReleaseTasks": _AGENTS,
        "CancelTasks": _READERS,
        "BatchGetTasks": _READERS,
        # vcs asks where its replica misses a ticket.
        "BatchGetTickets": _READERS | {"vcs"},
        "BatchGetProjects": _READERS,
        "GetWorkSummary": _READERS,
        "ResolveResources": frozenset({"*"}),
        "ListProjectSnapshot": frozenset({"*"}),
        "ListTicketSnapshot": frozenset({"*"}),
        "ListTaskSnapshot": frozenset({"*"}),
    },
    consumers={
        "projects": "vcs tells how the binding of a project's repository went",
        "replica": "identity tells the limits that an organization set for itself",
        "queue": "agents tells what sandboxes of the older protocol report; fenced by attempt and sandbox",
        "coordination": "vcs tells how merges went, each names the merge; and of commits, each of its task",
    },
)
