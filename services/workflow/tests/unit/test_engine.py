"""The transition engine: the tables of the contract, and that no sequence of moves breaks its invariants."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from servicekit.testing.profiles import examples
from workflow_service.engine import rules
from workflow_service.engine.rules import PHASES, Artifact, GateReport, Move, Refusal, TicketState

LEGAL = {
    ("backlog", "analyzing"),
    ("analyzing", "building"),
    ("building", "building-done"),
    ("building-done", "testing"),
    ("testing", "done"),
    ("testing", "building"),
}


@pytest.mark.parametrize(("source", "target"), list(itertools.product(rules.STATUS_CHAIN, rules.STATUS_CHAIN)))
def test_moves_named_by_status(source: str, target: str) -> None:
    state = TicketState(rules.STATUS_PHASE[source], source)
    decision = rules.decide_status(state, target)
    assert isinstance(decision, Move) == ((source, target) in LEGAL)
    forced = rules.decide_status(state, target, force=True)
    assert isinstance(forced, Move) == (source != target), "force skips the table, not sense"
    blocked = rules.decide_status(TicketState(rules.STATUS_PHASE[source], source, is_blocked=True), target)
    assert isinstance(blocked, Move) == (target in rules.LEAVES_OVERLAY)
    if isinstance(blocked, Move):
        assert blocked.clears_overlay


@pytest.mark.parametrize(("source", "target"), list(itertools.product(PHASES, PHASES)))
def test_moves_named_by_phase(source: str, target: str) -> None:
    state = TicketState(source, PHASES[source].mapped_status, is_blocked=source == rules.BLOCKED)
    decision = rules.decide_phase(state, target)
    legal = target != source and (target == rules.BLOCKED or target in PHASES[source].allowed)
    assert isinstance(decision, Move) == legal
    if isinstance(decision, Move) and target != rules.BLOCKED:
        assert decision.to_status == PHASES[target].mapped_status


def test_unknown_targets_are_refused_even_by_force() -> None:
    state = TicketState(rules.BACKLOG, "backlog")
    assert isinstance(rules.decide_status(state, "blocked", force=True), Refusal)
    assert isinstance(rules.decide_phase(state, "PHASE_NONE", force=True), Refusal)


def test_a_gate_stops_moves_forward_only() -> None:
    closed = GateReport(False, ("test_results",), ("artifact 'test_results' is missing",), "blocked")
    state = TicketState(rules.TESTING, "testing")
    assert isinstance(rules.decide_phase(state, rules.DONE, gate=closed), Refusal)
    assert isinstance(rules.decide_phase(state, rules.IMPLEMENTATION, gate=closed), Move)
    assert isinstance(rules.decide_phase(state, rules.BLOCKED, gate=closed), Move)
    assert isinstance(rules.decide_phase(state, rules.DONE, gate=closed, force=True), Move)


def test_gates_look_at_presence_tasks_and_content() -> None:
    gate = rules.evaluate_gate
    assert gate(rules.DESIGN, [], 0, 0).validation_status == "not_configured"
    empty = gate(rules.TESTING, [], 1, 0)
    assert (empty.met, empty.missing_artifacts, empty.validation_status) == (
        False, ("test_results", "test_evidence"), "blocked",
    )  # fmt: skip
    passed = [Artifact("test_results", {"all_passed": True}), Artifact("test_evidence")]
    assert gate(rules.TESTING, passed, 2, 1).validation_status == "waiting_tasks"
    assert gate(rules.TESTING, passed, 0, 0).validation_status == "waiting_tasks"
    assert gate(rules.TESTING, passed, 1, 0).met
    failed = [Artifact("test_results", {"all_passed": False}), Artifact("test_evidence")]
    assert gate(rules.TESTING, failed, 1, 0).reasons == ("test_results: not all passed",)
    assert gate(rules.TESTING, [*failed, *passed], 1, 0).met, "the newest evidence counts"
    change = Artifact("code_changes", {"has_tests": True})
    assert gate(rules.IMPLEMENTATION, [change, Artifact("test_coverage", {"percentage": 80})], 1, 0).met
    assert gate(rules.IMPLEMENTATION, [change, Artifact("test_coverage", {"percentage": 79.5})], 1, 0).reasons
    assert gate(rules.IMPLEMENTATION, [change, Artifact("test_coverage", {})], 1, 0).reasons == (
        "test_coverage is unknown",
    )
    document = {"content": "x" * 500, "sections": ["scope", "acceptance_criteria"]}
    assert gate(rules.REQUIREMENTS, [Artifact("requirements_document", document)], 1, 0).met
    assert not gate(rules.REQUIREMENTS, [Artifact("requirements_document", {"length": 10})], 1, 0).met


def test_automatic_moves_never_go_back() -> None:
    assert rules.automatic_phase(TicketState(rules.BACKLOG, "backlog"), "start") == rules.IMPLEMENTATION
    assert rules.automatic_phase(TicketState(rules.TESTING, "testing"), "start") is None
    assert rules.automatic_phase(TicketState(rules.IMPLEMENTATION, "building"), "finish") == rules.DONE
    assert rules.automatic_phase(TicketState(rules.DONE, "done"), "finish") is None
    assert rules.automatic_phase(TicketState(rules.BACKLOG, "backlog", is_blocked=True), "start") is None


class Ticket(RuleBasedStateMachine):
    """Any sequence of moves: the status always follows from the phase, and done is left by force only."""

    def __init__(self) -> None:
        super().__init__()
        self.state = TicketState(rules.BACKLOG, "backlog")
        self.history: list[Move] = []

    def apply(self, decision: Move | Refusal) -> None:
        if isinstance(decision, Refusal):
            assert decision.reasons
            return
        assert (decision.from_phase, decision.from_status) == (self.state.phase_id, self.state.status)
        overlay = decision.blocked or (self.state.is_blocked and not decision.clears_overlay)
        self.state = TicketState(decision.to_phase, decision.to_status, overlay, decision.from_phase)
        self.history.append(decision)

    @rule(goal=st.sampled_from(rules.STATUS_CHAIN), force=st.booleans())
    def by_status(self, goal: str, force: bool) -> None:
        was_done = self.state.status == "done" and not self.state.is_blocked
        decision = rules.decide_status(self.state, goal, force=force)
        assert not (was_done and not force and isinstance(decision, Move))
        self.apply(decision)

    @rule(goal=st.sampled_from(list(PHASES)), force=st.booleans(), met=st.booleans())
    def by_phase(self, goal: str, force: bool, met: bool) -> None:
        gate = rules.OPEN_GATE if met else GateReport(False, ("x",), ("x is missing",), "blocked")
        decision = rules.decide_phase(self.state, goal, gate=gate, force=force)
        forward = PHASES[goal].sequence_order > PHASES[self.state.phase_id].sequence_order
        gated = bool(PHASES[self.state.phase_id].required_artifacts)
        if isinstance(decision, Move) and forward and gated and goal != rules.BLOCKED:
            assert met or force
        self.apply(decision)

    @invariant()
    def status_follows_the_phase(self) -> None:
        if self.state.phase_id == rules.BLOCKED:
            assert self.state.is_blocked
        else:
            assert self.state.status == PHASES[self.state.phase_id].mapped_status


TestTicket = Ticket.TestCase
TestTicket.settings = settings(max_examples=examples(60))
