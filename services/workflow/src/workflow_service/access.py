"""Who may do what: every operation, RPC and consumer of this service."""

from __future__ import annotations

from servicekit.auth import Access, AccessTable

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
    "specs.pause_spec": Access("document:write"),
    "specs.resume_spec": Access("document:write"),
    "specs.cancel_spec": Access("document:write"),
    "specs.get_execution_status": Access("document:read"),
}

ACCESS = AccessTable(
    operations={**PROJECTS, **SPECS},
    rpcs={
        "ClaimTasks": _AGENTS,
        "StartTasks": _AGENTS,
        "HeartbeatTasks": _AGENTS,
        "CompleteTask": _AGENTS,
        "FailTask": _AGENTS,
        "ReleaseTasks": _AGENTS,
        "CancelTasks": _READERS,
        "BatchGetTasks": _READERS,
        "BatchGetTickets": _READERS,
        "BatchGetProjects": _READERS,
        "GetWorkSummary": _READERS,
        "ResolveResources": frozenset({"*"}),
        "ListProjectSnapshot": frozenset({"*"}),
        "ListTicketSnapshot": frozenset({"*"}),
        "ListTaskSnapshot": frozenset({"*"}),
    },
    consumers={
        "projects": "vcs tells how the binding of a project's repository went",
        "queue": "agents tells what sandboxes of the older protocol report; fenced by attempt and sandbox",
        "coordination": "vcs tells how merges went; each names the merge it belongs to",
    },
)
