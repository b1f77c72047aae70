"""The agents' status machine, heartbeats and match."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agents_service.agents import rules
from servicekit.errors import AppError

STATUS = st.sampled_from(rules.STATUSES)


def test_the_canonical_checksum() -> None:
    moment = datetime(2025, 11, 16, 10, 30, tzinfo=UTC)
    found = rules.heartbeat_checksum("a", moment, 1, "RUNNING", None, {"cpu": 45.0, "n": 3})
    assert found == "9d058cb234b20fd0c5f19ea2bbb12ed0ab2a2cc2a04ad4eb9bebd962c8699617"


@pytest.mark.parametrize("status", rules.STATUSES)
def test_no_status_moves_to_itself_and_terminated_is_final(status: str) -> None:
    assert not rules.may_move(status, status)
    assert not rules.may_move(rules.TERMINATED, status)


@given(STATUS, STATUS)
def test_a_refused_move_names_both(current: str, target: str) -> None:
    if rules.may_move(current, target):
        rules.check_transition(current, target)
    else:
        with pytest.raises(AppError) as caught:
            rules.check_transition(current, target)
        assert caught.value.meta == {"from_status": current, "to_status": target}


@given(STATUS, st.text(max_size=20))
def test_a_heartbeat_leads_only_where_the_machine_allows(current: str, reported: str) -> None:
    after = rules.status_after_heartbeat(current, reported)
    assert after == current or rules.may_move(current, after)
    if current in {rules.FAILED, rules.TERMINATED, rules.QUARANTINED}:
        assert after == current


@given(st.floats(0, 10_000), STATUS, st.sampled_from(["worker", "monitor", "guardian"]), st.integers(0, 3))
def test_a_verdict_only_worsens_and_moves_legally(silence: float, status: str, kind: str, recorded: int) -> None:
    verdict = rules.judge_silence(silence, status, kind, recorded)
    if verdict is None:
        return
    assert recorded <= verdict.misses <= rules.MISSES_UNTIL_FAILED
    assert verdict.announce == (verdict.misses > recorded)
    assert verdict.announce or verdict.target is not None
    assert verdict.target is None or rules.may_move(status, verdict.target)
    assert verdict.target != rules.FAILED or silence >= rules.STALE_AFTER_S


def test_silence_is_judged_by_intervals() -> None:
    assert rules.judge_silence(14.9, rules.RUNNING, "worker", 0) is None
    assert rules.judge_silence(15, rules.RUNNING, "worker", 0) == rules.StaleVerdict(1, None, True)
    assert rules.judge_silence(31, rules.RUNNING, "worker", 1) == rules.StaleVerdict(2, rules.DEGRADED, True)
    assert rules.judge_silence(91, rules.RUNNING, "worker", 2) == rules.StaleVerdict(3, rules.FAILED, True)
    assert rules.judge_silence(500, rules.FAILED, "worker", 3) is None


def test_gaps_are_named() -> None:
    assert rules.missing_sequence_numbers(0, 9) == []
    assert rules.missing_sequence_numbers(3, 4) == []
    assert rules.missing_sequence_numbers(3, 6) == [4, 5]
    assert len(rules.missing_sequence_numbers(1, 10**9)) == 100


@given(st.sets(st.text(max_size=5)), st.lists(st.text(max_size=5)), STATUS, st.integers(1, 100))
def test_a_score_is_within_its_range(required: set[str], own: list[str], status: str, capacity: int) -> None:
    score, matched = rules.match_score(required, own, status, "healthy", capacity)
    assert 0 <= score <= 1.65
    assert set(matched) <= required & set(own)


def test_tokens_are_normalised() -> None:
    assert rules.normalised([" Go ", "", "go", "Rust"], "capabilities") == ["go", "rust"]
    with pytest.raises(AppError):
        rules.normalised(["x" * 101], "tags")


class AgentLife(RuleBasedStateMachine):
    """Whatever comes in, an agent is in a known status that the machine allowed, and TERMINATED stays."""

    def __init__(self) -> None:
        super().__init__()
        self.status = rules.SPAWNING
        self.misses = 0
        self.over = False

    @rule(wanted=STATUS)
    def request(self, wanted: str) -> None:
        if rules.may_move(self.status, wanted):
            self.status = wanted

    @rule(reported=st.sampled_from(["IDLE", "running", "odd"]))
    def beat(self, reported: str) -> None:
        before = self.status
        self.status = rules.status_after_heartbeat(self.status, reported)
        assert self.status == before or rules.may_move(before, self.status)
        self.misses = 0

    @rule(silence=st.floats(0, 1_000))
    def sweep(self, silence: float) -> None:
        verdict = rules.judge_silence(silence, self.status, "worker", self.misses)
        if verdict is not None:
            self.misses = verdict.misses
            if verdict.target is not None:
                assert rules.may_move(self.status, verdict.target)
                self.status = verdict.target

    @invariant()
    def known_and_final(self) -> None:
        assert self.status in rules.STATUSES
        assert not (self.over and self.status != rules.TERMINATED)
        self.over = self.status == rules.TERMINATED


TestAgentLife = AgentLife.TestCase


@given(st.integers(1, 1_000), st.integers(0, 1_000), st.integers(1, 50))
def test_an_agent_never_gets_more_than_it_may_have(capacity: int, running: int, asked: int) -> None:
    slots = rules.free_slots(capacity, running, asked)
    assert 0 <= slots <= asked
    assert running + slots <= max(capacity, running)
    assert slots == asked or running + slots >= capacity


@given(STATUS, st.sampled_from(["IDLE", "RUNNING", "busy", "?"]))
def test_a_closed_agent_is_opened_by_no_heartbeat(status: str, reported: str) -> None:
    after = rules.status_after_heartbeat(status, reported, closed=True)
    assert rules.takes_tasks(status) or not rules.takes_tasks(after)
