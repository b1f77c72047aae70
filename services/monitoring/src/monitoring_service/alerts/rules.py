"""When an alert is due: conditions, readings, fingerprints."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from monitoring_service.anomalies.rules import HEARTBEAT_MISSED, MISSES_UNTIL_FAILED

UNRESPONSIVE = "agent.status.unresponsive"
TICKET_BLOCKED = "ticket.blocked"
TICKET_BLOCKED_CRITICAL = "ticket.blocked.critical"

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
# Longer operators first, or `>=` would be read as `>`.
_CONDITION = re.compile(r"\s*value\s*(>=|<=|==|!=|>|<)\s*(-?\d+(?:\.\d+)?)\s*")


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of a value with a number."""

    operator: str
    threshold: float

    def holds(self, value: float) -> bool:
        """Whether the value makes the alert due."""
        return _OPERATORS[self.operator](value, self.threshold)


def parse_condition(text: str) -> Condition:
    """`value > 2`, with one of > >= < <= == !=. Raises `ValueError` for anything else: nothing is evaluated."""
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise ValueError(f"not a condition: {text!r}")
    return Condition(match[1], float(match[2]))


def fingerprint(labels: Mapping[str, str]) -> str:
    """The same text for the same labels in any order: alerts about two things are two alerts."""
    return json.dumps(dict(labels), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def anomaly_readings(metric_name: str, observed: float) -> dict[str, float]:
    """The metrics that rules are asked about when an anomaly of this metric is found."""
    found = {metric_name: observed}
    if metric_name == HEARTBEAT_MISSED:
        # The third missed heartbeat is told when the agent fails by it; one that is only late is not unresponsive.
        found[UNRESPONSIVE] = float(observed >= MISSES_UNTIL_FAILED)
    return found


def ticket_readings(priority: str | None) -> dict[str, float]:
    """The metrics of a blocked ticket."""
    found = {TICKET_BLOCKED: 1.0}
    if (priority or "").upper() == "CRITICAL":
        found[TICKET_BLOCKED_CRITICAL] = 1.0
    return found


def alert_message(rule: str, metric: str, value: float, description: str) -> str:
    """What the alert says."""
    return f"{description} ({rule}: {metric} = {value:g})"
