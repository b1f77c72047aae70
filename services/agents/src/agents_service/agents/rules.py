"""Decisions about agents: the status machine, heartbeats, staleness, and the match with required capabilities."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agents_service.errors import AGENT_TRANSITION_REFUSED
from servicekit.errors import invalid

SPAWNING, IDLE, RUNNING, DEGRADED = "SPAWNING", "IDLE", "RUNNING", "DEGRADED"
FAILED, QUARANTINED, TERMINATED = "FAILED", "QUARANTINED", "TERMINATED"

TRANSITIONS: Mapping[str, frozenset[str]] = {
    SPAWNING: frozenset({IDLE, FAILED, TERMINATED}),
    IDLE: frozenset({RUNNING, DEGRADED, QUARANTINED, TERMINATED}),
    RUNNING: frozenset({IDLE, DEGRADED, FAILED, QUARANTINED}),
    DEGRADED: frozenset({IDLE, FAILED, QUARANTINED, TERMINATED}),
    FAILED: frozenset({QUARANTINED, TERMINATED}),
    QUARANTINED: frozenset({IDLE, TERMINATED}),
    TERMINATED: frozenset(),
}
STATUSES = tuple(TRANSITIONS)
ACTIVE = frozenset({IDLE, RUNNING})
"""Statuses in which an agent may take tasks."""
OPERATIONAL = frozenset({SPAWNING, IDLE, RUNNING, DEGRADED})
MAY_REGISTER = ("agent:write", "agent:*", "*:*")
"""Permissions of which a member needs one to have agents work for an organization."""

STALE_AFTER_S = 90
"""Seconds without a heartbeat after which the REST health calls an agent unhealthy."""
MISSES_UNTIL_DEGRADED = 2
MISSES_UNTIL_FAILED = 3
TTL_BY_STATUS_S: Mapping[str, int] = {RUNNING: 15, IDLE: 30}
TTL_BY_TYPE_S: Mapping[str, int] = {"monitor": 15, "watchdog": 15, "guardian": 60}
DEFAULT_TTL_S = 30
MAX_TOKEN_LENGTH = 100
MAX_REPORTED_GAP = 100


def parse_status(text: str) -> str:
    """The status meant by `text`, in any letter case. Raises 422 for an unknown one."""
    status = text.strip().upper()
    if status not in TRANSITIONS:
        raise invalid("status", f"must be one of {', '.join(STATUSES)}", text, type="enum")
    return status


def check_transition(current: str, target: str) -> None:
    """Raises 409 naming both statuses when the machine does not allow this move; a move to itself is not one."""
    if target not in TRANSITIONS[current]:
        raise AGENT_TRANSITION_REFUSED(
            f"An agent cannot go from {current} to {target}.", from_status=current, to_status=target
        )


def cleanable(target: str | None) -> frozenset[str]:
    """Statuses from which silent agents are marked: failed ones wait for nothing but the end of their service."""
    return OPERATIONAL if target is None else frozenset(s for s in OPERATIONAL | {FAILED} if may_move(s, target))


def takes_tasks(status: str) -> bool:
    """Whether an agent in this status may be given tasks."""
    return status in ACTIVE or status == SPAWNING


def free_slots(capacity: int, running: int, asked: int) -> int:
    """How many more tasks an agent with `running` sandboxes gets, of the ones it asks for."""
    return max(0, min(asked, capacity - running))


def may_move(current: str, target: str) -> bool:
    """Whether the machine allows the move."""
    return target in TRANSITIONS[current]


def normalised(tokens: Iterable[str], field: str) -> list[str]:
    """Capabilities or tags trimmed, lower-cased, without blanks and doubles, in order. Raises 422 for a long one."""
    result: dict[str, None] = {}
    for token in tokens:
        text = token.strip().lower()
        if len(text) > MAX_TOKEN_LENGTH:
            raise invalid(field, f"each entry has at most {MAX_TOKEN_LENGTH} characters", token)
        if text:
            result[text] = None
    return list(result)


def agent_name(agent_type: str, phase_id: str | None, agent_id: str) -> str:
    """`<type>-<phase>-<last six of the id>`: unique without counting rows."""
    phase = (phase_id or "any").lower().removeprefix("phase_")
    return f"{agent_type.lower()}-{phase}-{agent_id[-6:]}"[:255]


def ttl_s(status: str, agent_type: str) -> int:
    """Seconds after which a heartbeat counts as missed."""
    return TTL_BY_STATUS_S.get(status) or TTL_BY_TYPE_S.get(agent_type.lower(), DEFAULT_TTL_S)


def missed_heartbeats(silence_s: float, status: str, agent_type: str) -> int:
    """How many intervals passed without a heartbeat."""
    return max(0, int(silence_s // ttl_s(status, agent_type)))


@dataclass(frozen=True, slots=True)
class StaleVerdict:
    """What the sweep does with one silent agent: `misses` to record, the status to move to (None: stay)."""

    misses: int
    target: str | None
    announce: bool


def judge_silence(silence_s: float, status: str, agent_type: str, recorded_misses: int) -> StaleVerdict | None:
    """The verdict on an operational agent silent for `silence_s`; None when nothing new is to be said.

    One missed interval is announced, the second degrades, the third fails, but none fails within the 90 s that the REST
    health tolerates.
    """
    misses = missed_heartbeats(silence_s, status, agent_type)
    if misses == 0 or status not in OPERATIONAL:
        return None
    level = min(misses, MISSES_UNTIL_FAILED)
    if level == MISSES_UNTIL_FAILED and silence_s < STALE_AFTER_S:
        level = MISSES_UNTIL_DEGRADED
    if level <= recorded_misses:
        return None
    target: str | None = None
    if level == MISSES_UNTIL_FAILED and may_move(status, FAILED):
        target = FAILED
    elif level == MISSES_UNTIL_FAILED and status == IDLE:
        target = DEGRADED
        level = MISSES_UNTIL_DEGRADED
    elif level == MISSES_UNTIL_DEGRADED and may_move(status, DEGRADED):
        target = DEGRADED
    return StaleVerdict(level, target, announce=level > recorded_misses)


def closes(target: str) -> bool:
    """Whether an agent that somebody moves to this status is closed for tasks until somebody opens it."""
    return target == DEGRADED


def status_after_heartbeat(current: str, reported: str, *, closed: bool = False) -> str:
    """The status after a heartbeat: one that spawned or was silent is idle again, unless somebody closed it."""
    if current not in {SPAWNING, DEGRADED, IDLE, RUNNING}:
        return current
    wanted = RUNNING if reported.strip().upper() in {RUNNING, "WORKING", "BUSY"} else IDLE
    if current in {SPAWNING, DEGRADED}:
        return current if closed else IDLE
    return wanted if wanted == current or may_move(current, wanted) else current


def may_register(permissions: Collection[str]) -> bool:
    """Whether a member with these permissions may have agents work for the organization."""
    return any(permission in permissions for permission in MAY_REGISTER)


def missing_sequence_numbers(last: int, received: int) -> list[int]:
    """The numbers skipped between two heartbeats, at most 100 of them; empty for the first heartbeat."""
    if last <= 0 or received <= last + 1:
        return []
    return list(range(last + 1, min(received, last + 1 + MAX_REPORTED_GAP)))


def heartbeat_checksum(
    agent_id: str,
    timestamp: datetime,
    sequence_number: int,
    status: str,
    current_task_id: str | None,
    health_metrics: Mapping[str, Any],
) -> str:
    """SHA-256 (hex) of the canonical JSON of a heartbeat: sorted keys, `", "` and `": "`, ASCII, time as `+00:00`."""
    moment = timestamp if timestamp.tzinfo is not None else timestamp.replace(tzinfo=UTC)
    body = {
        "agent_id": agent_id,
        "current_task_id": current_task_id,
        "health_metrics": health_metrics,
        "sequence_number": sequence_number,
        "status": status,
        "timestamp": moment.isoformat(),
    }
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def match_score(
    required: Collection[str], capabilities: Sequence[str], status: str, health_status: str, capacity: int
) -> tuple[float, list[str]]:
    """`(score 0..1.65, matched capabilities)`: coverage + 0.2 idle + 0.2 healthy + 0.05 for each of up to 5 slots."""
    wanted = set(required)
    matched = sorted(wanted & set(capabilities))
    score = len(matched) / len(wanted) if wanted else 0.0
    score += 0.2 if status == IDLE else 0.0
    score += 0.2 if health_status == "healthy" else 0.0
    score += 0.05 * min(capacity, 5)
    return round(score, 6), matched
