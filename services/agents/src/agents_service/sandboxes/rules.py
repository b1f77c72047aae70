"""Decisions about sandboxes: how they end, their activity, and the phases of spec sandboxes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

RUNNING, ENDED = "running", "ended"
COMPLETED, FAILED, CANCELLED, LOST, TERMINATED = "completed", "failed", "cancelled", "lost", "terminated"
REASONS = (COMPLETED, FAILED, CANCELLED, LOST, TERMINATED)

MESSAGE_TYPES = ("user_message", "interrupt", "guardian_nudge", "system", "agent_collaboration")
MESSAGES_WAITING_MAX = 100
MESSAGE_MAX_BYTES = 10_000
MESSAGES_PER_READ = 100

ALIVE_WITHIN_S = 120.0
STUCK_RUNNING_AFTER_S = 900.0
IDLE_AFTER_S = 600.0
STUCK_BETWEEN_PHASES_AFTER_S = 300.0

PHASES = ("explore", "prd", "requirements", "design", "tasks", "sync")
PHASE_EVENTS = (
    "spec.phase_started",
    "spec.phase_completed",
    "spec.execution_completed",
    "spec.execution_failed",
)
ACTIVITY_EVENTS = ("agent.heartbeat", "spec.heartbeat", "agent.completed", *PHASE_EVENTS[2:])


@dataclass(frozen=True, slots=True)
class Activity:
    """What a sandbox has been doing. Durations are seconds."""

    last_work_at: datetime | None
    last_heartbeat_at: datetime | None
    heartbeat_status: str | None
    has_completed: bool
    is_alive: bool
    is_idle: bool
    is_stuck_running: bool
    idle_duration_seconds: float


def activity(
    now: datetime,
    opened_at: datetime,
    last_work_at: datetime | None,
    last_heartbeat_at: datetime | None,
    heartbeat_data: str | None,
    completed_at: datetime | None,
) -> Activity:
    """Judge a sandbox by its events; only an alive one can be idle."""
    status = _text(_document(heartbeat_data).get("status"))
    alive = last_heartbeat_at is not None and (now - last_heartbeat_at).total_seconds() < ALIVE_WITHIN_S
    idle_s = (now - (last_work_at or opened_at)).total_seconds()
    completed = completed_at is not None
    done = completed_at is not None and (last_work_at is None or last_work_at <= completed_at)
    works = status in {"running", "alive"}
    stuck = alive and not done and works and last_work_at is not None and idle_s > STUCK_RUNNING_AFTER_S
    idle = stuck or (alive and not done and not works and (last_work_at is None or idle_s > IDLE_AFTER_S))
    return Activity(last_work_at, last_heartbeat_at, status, completed, alive, idle, stuck, max(0.0, idle_s))


@dataclass(frozen=True, slots=True)
class PhaseStatus:
    """How far a spec sandbox has come through its phases."""

    is_spec_sandbox: bool
    phases_completed: list[str]
    phases_started: list[str]
    last_phase_completed: str | None
    last_phase_completed_at: datetime | None
    next_expected_phase: str | None
    is_stuck_between_phases: bool
    stuck_duration_seconds: float
    has_execution_completed: bool
    has_execution_failed: bool


def phase_status(
    sandbox_id: str, happened: Sequence[tuple[str, str, datetime]], now: datetime, alive: bool
) -> PhaseStatus:
    """Judge the phases by `(event type, data, time)` in order."""
    started: list[str] = []
    completed: list[str] = []
    last_at: datetime | None = None
    over = failed = False
    for event_type, data, moment in happened:
        phase = _text(_document(data).get("phase"))
        if event_type == "spec.phase_started" and phase and phase not in started:
            started.append(phase)
        elif event_type == "spec.phase_completed" and phase:
            if phase not in completed:
                completed.append(phase)
            last_at = moment
        elif event_type == "spec.execution_completed":
            over = True
        elif event_type == "spec.execution_failed":
            failed = True
    following = next((phase for phase in PHASES if phase not in completed), None) if completed or started else PHASES[0]
    waiting_s = (now - last_at).total_seconds() if last_at is not None else 0.0
    between = last_at is not None and following is not None and following not in started and not over and not failed
    stuck = between and alive and waiting_s > STUCK_BETWEEN_PHASES_AFTER_S
    return PhaseStatus(
        is_spec_sandbox=sandbox_id.startswith("spec-") or bool(started or completed),
        phases_completed=completed,
        phases_started=started,
        last_phase_completed=completed[-1] if completed else None,
        last_phase_completed_at=last_at,
        next_expected_phase=following,
        is_stuck_between_phases=stuck,
        stuck_duration_seconds=waiting_s if stuck else 0.0,
        has_execution_completed=over,
        has_execution_failed=failed,
    )


def _document(data: str | None) -> Mapping[str, Any]:
    value = json.loads(data) if data else {}
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def error_text(message: str | None, result: Mapping[str, Any] | None) -> str:
    """The error of a failed attempt: what the worker says, else its failing command, else a plain sentence."""
    if message and message.strip():
        return message.strip()[:10_000]
    commands = (result or {}).get("commands")
    if isinstance(commands, list):
        for command in commands:
            if isinstance(command, dict) and command.get("exit_code") not in (0, None):
                return f"Command failed with exit code {command['exit_code']}: {command.get('command', '')}"[:10_000]
    return "The attempt failed without saying why."


def reason_after(
    status: str | None, current_attempt: int, current_sandbox_id: str, attempt: int, sandbox_id: str
) -> str | None:
    """How a silent sandbox ends, judged by its task as it is now; None while it still holds it.

    `status` None: the task is gone.
    """
    if status is None:
        return TERMINATED
    if current_attempt > attempt or (current_sandbox_id and current_sandbox_id != sandbox_id):
        return LOST
    over = {"completed": COMPLETED, "failed": FAILED, "cancelled": CANCELLED, "pending": LOST, "needs_revision": LOST}
    return over.get(status)
