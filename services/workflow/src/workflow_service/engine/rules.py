"""The transition engine's decisions: the phase registry, the legal moves, the gates.

A ticket is in one phase, which gives its status. A client may name its move in either vocabulary: a move named by
status is checked against `STATUS_MOVES`, one named by phase against the registry. Whatever names it, the same
decision is made here and the same effects follow: phase, status, history, event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

BACKLOG = "PHASE_BACKLOG"
REQUIREMENTS = "PHASE_REQUIREMENTS"
DESIGN = "PHASE_DESIGN"
IMPLEMENTATION = "PHASE_IMPLEMENTATION"
TESTING = "PHASE_TESTING"
DEPLOYMENT = "PHASE_DEPLOYMENT"
DONE = "PHASE_DONE"
BLOCKED = "PHASE_BLOCKED"

PRIORITIES = ("CRITICAL", "HIGH", "MEDIUM", "LOW")
MIN_DOCUMENT_CHARACTERS = 500
MIN_COVERAGE_PERCENT = 80


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase of the registry. `allowed`: phases that may follow, PHASE_BLOCKED not named."""

    id: str
    name: str
    description: str
    sequence_order: int
    allowed: tuple[str, ...]
    mapped_status: str
    execution_mode: str
    continuous_mode: bool
    is_terminal: bool
    skippable: bool
    default_tasks: tuple[str, ...] = ()
    required_artifacts: tuple[str, ...] = ()

    @property
    def allowed_transitions(self) -> tuple[str, ...]:
        """Phases that may follow, PHASE_BLOCKED included."""
        return self.allowed if self.id == BLOCKED else (*self.allowed, BLOCKED)


PHASES: Mapping[str, Phase] = {
    phase.id: phase
    for phase in (
        Phase(BACKLOG, "Backlog", "Tickets that wait to be taken up.", 0, (REQUIREMENTS, IMPLEMENTATION),
              "backlog", "exploration", False, False, True),
        Phase(REQUIREMENTS, "Requirements", "What is wanted is written down.", 1, (DESIGN, IMPLEMENTATION),
              "analyzing", "exploration", False, False, True,
              ("analyze_requirements", "generate_prd"), ("requirements_document",)),
        Phase(DESIGN, "Design", "How it is built is decided.", 2, (IMPLEMENTATION,),
              "analyzing", "exploration", False, False, True, ("create_design",)),
        Phase(IMPLEMENTATION, "Implementation", "The change is made.", 3, (TESTING, DONE),
              "building", "implementation", True, False, False,
              ("implement_feature",), ("code_changes", "test_coverage")),
        Phase(TESTING, "Testing", "The change is checked.", 4, (DEPLOYMENT, IMPLEMENTATION, DONE),
              "testing", "validation", True, False, False,
              ("run_tests", "write_tests"), ("test_results", "test_evidence")),
        Phase(DEPLOYMENT, "Deployment", "The change is brought to its users.", 5, (DONE,),
              "building-done", "implementation", True, False, True, ("deploy",)),
        Phase(DONE, "Done", "Nothing is left to do.", 6, (),
              "done", "exploration", False, True, False),
        Phase(BLOCKED, "Blocked", "Something outside stops the work.", 99,
              (BACKLOG, REQUIREMENTS, DESIGN, IMPLEMENTATION, TESTING),
              "backlog", "exploration", False, True, False),
    )
}  # fmt: skip

STATUS_MOVES: Mapping[str, tuple[str, ...]] = {
    "backlog": ("analyzing",),
    "analyzing": ("building",),
    "building": ("building-done",),
    "building-done": ("testing",),
    "testing": ("done", "building"),
    "done": (),
}
STATUS_PHASE: Mapping[str, str] = {
    "backlog": BACKLOG,
    "analyzing": REQUIREMENTS,
    "building": IMPLEMENTATION,
    "building-done": DEPLOYMENT,
    "testing": TESTING,
    "done": DONE,
}
STATUS_CHAIN = ("backlog", "analyzing", "building", "building-done", "testing", "done")
LEAVES_OVERLAY = frozenset({"analyzing", "building", "building-done", "testing"})
BLOCKER_TYPES = ("dependency", "waiting_on_clarification", "failing_checks", "environment")

# Phase ids of older clients that no registry holds.
FOREIGN_PHASES: Mapping[str, str] = {
    "PHASE_INITIAL": REQUIREMENTS,
    "PHASE_INTEGRATION": TESTING,
    "PHASE_VALIDATION": TESTING,
    "PHASE_REFACTORING": IMPLEMENTATION,
    "PHASE_FINAL": IMPLEMENTATION,
    "PHASE_BUILDING_DONE": DEPLOYMENT,
}


@dataclass(frozen=True, slots=True)
class TicketState:
    """Where a ticket is. `return_phase`: where it was before PHASE_BLOCKED."""

    phase_id: str
    status: str
    is_blocked: bool = False
    return_phase: str | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """Evidence that was collected for a gate."""

    type: str
    content: Mapping[str, Any] = field(default_factory=dict)
    path: str | None = None


@dataclass(frozen=True, slots=True)
class GateReport:
    """The one evaluation of a gate. `validation_status`: ready, blocked, waiting_tasks or not_configured."""

    met: bool
    missing_artifacts: tuple[str, ...]
    reasons: tuple[str, ...]
    validation_status: str


OPEN_GATE = GateReport(True, (), (), "not_configured")


@dataclass(frozen=True, slots=True)
class Move:
    """What a legal move does to the ticket."""

    from_phase: str
    to_phase: str
    from_status: str
    to_status: str
    blocked: bool
    clears_overlay: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a move is not made."""

    reasons: tuple[str, ...]


def known_phase(phase_id: str) -> str | None:
    """The registry's id for `phase_id`, older names mapped; None for one that nobody knows."""
    if phase_id in PHASES:
        return phase_id
    return FOREIGN_PHASES.get(phase_id)


def normal_priority(value: str) -> str | None:
    """The priority in upper case, None when it is none."""
    upper = value.upper()
    return upper if upper in PRIORITIES else None


def status_of(phase_id: str) -> str:
    """The status that goes with a phase."""
    return PHASES[phase_id].mapped_status


def next_status(status: str) -> str | None:
    """The status that follows in the chain, None after the last."""
    place = STATUS_CHAIN.index(status)
    return STATUS_CHAIN[place + 1] if place + 1 < len(STATUS_CHAIN) else None


def decide_status(state: TicketState, to_status: str, *, force: bool = False) -> Move | Refusal:
    """A move named by status. `force` skips every check but that the status exists."""
    if to_status not in STATUS_PHASE:
        return Refusal((f"'{to_status}' is no status; one of {', '.join(STATUS_CHAIN)}",))
    target = STATUS_PHASE[to_status]
    if to_status == state.status and not state.is_blocked:
        return Refusal((f"the ticket is in '{to_status}' already",))
    if not force:
        if state.is_blocked:
            if to_status not in LEAVES_OVERLAY:
                return Refusal((f"a blocked ticket may move to {', '.join(sorted(LEAVES_OVERLAY))} only",))
        elif to_status not in STATUS_MOVES[state.status]:
            allowed = ", ".join(STATUS_MOVES[state.status]) or "nothing"
            return Refusal((f"from '{state.status}' a ticket may move to {allowed}, not to '{to_status}'",))
    return Move(state.phase_id, target, state.status, to_status, False, state.is_blocked)


def decide_phase(
    state: TicketState, to_phase: str, *, gate: GateReport = OPEN_GATE, force: bool = False
) -> Move | Refusal:
    """A move named by phase. The gate of the phase left counts for moves forward only; `force` skips the checks."""
    if to_phase not in PHASES:
        return Refusal((f"'{to_phase}' is no phase",))
    if to_phase == state.phase_id:
        return Refusal((f"the ticket is in {to_phase} already",))
    target = PHASES[to_phase]
    if to_phase == BLOCKED:
        # The status stays: a blocked ticket is where it was, and goes back there.
        return Move(state.phase_id, BLOCKED, state.status, state.status, True, False)
    if not force:
        source = PHASES[state.phase_id]
        if state.is_blocked and to_phase not in PHASES[BLOCKED].allowed:
            return Refusal((f"a blocked ticket may not move to {to_phase}",))
        if to_phase not in source.allowed and not (state.phase_id == BLOCKED and to_phase == state.return_phase):
            return Refusal((f"from {state.phase_id} a ticket may not move to {to_phase}",))
        if target.sequence_order > source.sequence_order and source.required_artifacts and not gate.met:
            return Refusal(gate.reasons)
    return Move(state.phase_id, to_phase, state.status, target.mapped_status, False, state.is_blocked)


def can_block(state: TicketState) -> bool:
    """Whether the overlay may be set: not on a blocked or finished ticket."""
    return not state.is_blocked and state.status != "done"


def evaluate_gate(phase_id: str, artifacts: Sequence[Artifact], tasks_total: int, tasks_open: int) -> GateReport:
    """Presence of artifacts, completed tasks and the content criteria, in one evaluation for every route.

    `tasks_total`, `tasks_open`: tasks of the ticket in that phase, and those of them not completed.
    """
    required = PHASES[phase_id].required_artifacts
    if not required:
        return OPEN_GATE
    by_type: dict[str, list[Artifact]] = {}
    for artifact in artifacts:
        by_type.setdefault(artifact.type, []).append(artifact)
    missing = tuple(kind for kind in required if kind not in by_type)
    reasons = [f"artifact '{kind}' is missing" for kind in missing]
    waiting = tasks_total == 0 or tasks_open > 0
    if tasks_total == 0:
        reasons.append("the phase has no task")
    elif tasks_open:
        reasons.append(f"{tasks_open} task(s) of the phase are not completed")
    reasons += [reason for kind in required if kind in by_type for reason in _content_reasons(by_type[kind])]
    status = "blocked" if missing else "waiting_tasks" if waiting else "ready" if not reasons else "blocked"
    return GateReport(not reasons, missing, tuple(reasons), status)


def _content_reasons(artifacts: Sequence[Artifact]) -> list[str]:
    """The criteria that no artifact of this type meets; the newest one is the one that counts."""
    artifact = artifacts[-1]
    content = artifact.content
    if artifact.type == "requirements_document":
        text = content.get("content")
        length = content.get("length") or (len(text) if isinstance(text, str) else 0)
        sections = content.get("sections") or ()
        reasons = []
        if not isinstance(length, int | float) or length < MIN_DOCUMENT_CHARACTERS:
            reasons.append(f"requirements_document has fewer than {MIN_DOCUMENT_CHARACTERS} characters")
        reasons += [f"requirements_document has no section '{name}'"
                    for name in ("scope", "acceptance_criteria") if name not in sections]  # fmt: skip
        return reasons
    if artifact.type == "test_coverage":
        percentage = content.get("percentage")
        if not isinstance(percentage, int | float):
            return ["test_coverage is unknown"]
        if percentage < MIN_COVERAGE_PERCENT:
            return [f"test_coverage is {percentage:g} %, less than {MIN_COVERAGE_PERCENT} %"]
    if artifact.type == "code_changes" and content.get("has_tests") is not True:
        return ["code_changes come without tests"]
    if artifact.type == "test_results" and content.get("all_passed") is not True:
        return ["test_results: not all passed"]
    return []


AutoMove = Literal["start", "finish"]


def automatic_phase(state: TicketState, move: AutoMove) -> str | None:
    """Where the workflow itself moves a ticket when its first task starts, or when all of its work has ended well.

    None when the ticket stays: a blocked, finished or further one is never moved back.
    """
    if state.is_blocked or state.status == "done":
        return None
    if move == "start":
        return IMPLEMENTATION if PHASES[state.phase_id].sequence_order < PHASES[IMPLEMENTATION].sequence_order else None
    return DONE
