"""How bad a silent agent is."""

from __future__ import annotations

INFO, WARNING, ERROR, CRITICAL = "info", "warning", "error", "critical"
SEVERITIES = (INFO, WARNING, ERROR, CRITICAL)

HEARTBEAT_MISSED = "agent.heartbeat.missed"
THRESHOLD_BREACH = "threshold_breach"
# The ladder of the contract: one missed heartbeat warns, the second degrades, the third makes unresponsive.
MISSES_UNTIL_FAILED = 3
_LADDER = {1: WARNING, 2: ERROR}
UNRESPONSIVE = "unresponsive"
"""The health status of an agent whose heartbeats are missing."""
AGENT_FAILED = "FAILED"
GONE = frozenset({"TERMINATED"})
"""Statuses of agents that are silent because somebody wanted it so."""


def silence_severity(missed: int) -> str:
    """The severity of so many missed heartbeats, one or more."""
    return _LADDER.get(missed, CRITICAL)


def silence_description(agent_id: str, missed: int) -> str:
    """One sentence for people."""
    return f"Agent {agent_id} has missed {missed} heartbeat{'s' if missed != 1 else ''}."
