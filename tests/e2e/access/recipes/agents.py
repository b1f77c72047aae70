"""Calls of the agents service's operations."""

from __future__ import annotations

from tests.e2e.access.recipe import Recipe, Scope

SELF = frozenset({"agent"})
OWN = frozenset({"agent", "sandbox"})

RECIPES: dict[str, Recipe] = {
    "agents.register": Recipe(
        body={"agent_type": "worker", "capabilities": ["python"], "organization_id": "{organization_id}"}
    ),
    "agents.search": Recipe(query={"capabilities": "python"}, scope=Scope.LISTS),
    "agents.best_fit": Recipe(query={"capabilities": "python"}, scope=Scope.LISTS, nothing=404),
    "agents.list_health": Recipe(scope=Scope.LISTS),
    "agents.statistics": Recipe(scope=Scope.LISTS),
    "agents.list_stale": Recipe(scope=Scope.LISTS),
    "agents.cleanup_stale": Recipe(query={"timeout_seconds": 3600}, scope=Scope.LISTS),
    "agents.list_agents": Recipe(scope=Scope.LISTS),
    "agents.get_agent": Recipe(machines=SELF),
    "agents.update_agent": Recipe(body={"capacity": 3}, machines=SELF),
    "agents.set_availability": Recipe(body={"available": False}, machines=SELF),
    "agents.get_health": Recipe(machines=SELF),
    "agents.heartbeat": Recipe(
        body={"agent_id": "{agent_id}", "sequence_number": 1, "status": "idle"}, machines=SELF, by="agent"
    ),
    "agents.claim": Recipe(body={"max": 1, "project_ids": ["{spare_project_id}"]}, machines=SELF, by="agent"),
    "sandboxes.health": Recipe(scope=Scope.ONESELF),
    "sandboxes.monitoring_status": Recipe(scope=Scope.LISTS),
    "sandboxes.clear_tracked_sandboxes": Recipe(by="super_admin"),
    "sandboxes.record_event": Recipe(body={"event_type": "agent.output"}, machines=OWN, by="sandbox"),
    "sandboxes.record_events": Recipe(body={"events": [{"event_type": "agent.output"}]}, machines=OWN, by="sandbox"),
    "sandboxes.list_events": Recipe(machines=OWN),
    "sandboxes.get_trajectory": Recipe(machines=OWN),
    "sandboxes.get_task": Recipe(machines=OWN),
    "sandboxes.get_phase_status": Recipe(machines=OWN),
    "sandboxes.send_message": Recipe(body={"content": "hello"}, machines=SELF),
    "sandboxes.read_messages": Recipe(machines=OWN),
    "sandboxes.heartbeat": Recipe(body={"status": "running"}, machines=OWN, by="sandbox"),
    "sandboxes.task_complete": Recipe(body={"task_id": "{sandbox_task_id}"}, machines=OWN, by="sandbox"),
    "sandboxes.release": Recipe(body={"reason": "going away"}, machines=OWN, by="sandbox"),
    "sandboxes.report_usage": Recipe(
        body={"entries": [{"usage_id": "u-{unique}", "provider": "anthropic", "model": "claude-sonnet-4-5"}]},
        machines=OWN,
        by="sandbox",
    ),
}
