"""Who may call what."""

from __future__ import annotations

from servicekit.auth import AGENTS, PUBLIC, SANDBOXES, USERS, Access, AccessTable

WORKERS = USERS | AGENTS
"""People and the agents of their organization."""
ATTEMPT = USERS | AGENTS | SANDBOXES
"""The sandbox itself, the agent that works in it, and people with the permission (workers of the older protocol)."""

ACCESS = AccessTable(
    operations={
        "agents.register": Access("agent:write"),
        "agents.search": Access("agent:read", WORKERS),
        "agents.best_fit": Access("agent:read", WORKERS),
        "agents.list_health": Access("agent:read", WORKERS),
        "agents.statistics": Access("agent:read", WORKERS),
        "agents.list_stale": Access("agent:read", WORKERS),
        "agents.cleanup_stale": Access("agent:write"),
        "agents.list_agents": Access("agent:read", WORKERS),
        "agents.get_agent": Access("agent:read", WORKERS),
        "agents.update_agent": Access("agent:write", WORKERS),
        "agents.set_availability": Access("agent:write", WORKERS),
        "agents.get_health": Access("agent:read", WORKERS),
        "agents.heartbeat": Access("agent:write", WORKERS),
        "agents.claim": Access("agent:write", WORKERS),
        "sandboxes.health": PUBLIC,
        "sandboxes.monitoring_status": Access("agent:read"),
        "sandboxes.clear_tracked_sandboxes": Access("agent:write", platform=True),
        "sandboxes.record_event": Access("task:write", ATTEMPT),
        "sandboxes.record_events": Access("task:write", ATTEMPT),
        "sandboxes.list_events": Access("agent:read", ATTEMPT),
        "sandboxes.get_trajectory": Access("agent:read", ATTEMPT),
        "sandboxes.get_task": Access("task:read", ATTEMPT),
        "sandboxes.get_phase_status": Access("agent:read", ATTEMPT),
        "sandboxes.send_message": Access("task:write", WORKERS),
        "sandboxes.read_messages": Access("agent:read", ATTEMPT),
        "sandboxes.heartbeat": Access("task:write", ATTEMPT),
        "sandboxes.task_complete": Access("task:write", ATTEMPT),
        "sandboxes.release": Access("task:write", ATTEMPT),
        "sandboxes.report_usage": Access("task:write", ATTEMPT),
    },
    rpcs={
        "BatchGetAgents": frozenset({"monitoring"}),
        "BatchGetSandboxes": frozenset({"monitoring"}),
        "SendMessages": frozenset({"monitoring"}),
        "EndSandboxes": frozenset({"monitoring"}),
        "GetAgentSummary": frozenset({"monitoring"}),
        "ResolveResources": frozenset({"billing", "monitoring"}),
        "ListAgentSnapshot": frozenset({"monitoring"}),
    },
    consumers={
        "sandboxes": "ends sandboxes whose task is over; acts for the service itself",
        "departures": "ends agents whose member left, lost the permission or has no account any more",
    },
)
