"""The queue's decisions: score, retries, fencing, reasons."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from servicekit.testing.profiles import examples
from workflow_service.queue import rules
from workflow_service.queue.limits_rules import OrganizationLimits, at_capacity, out_of_hours
from workflow_service.queue.rules import Attempt, Hold, Lease, Scored
from workflow_service.tasks.rules import Surroundings, reasons

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (Scored("CRITICAL", NOW), 0.45 + 0.05),
        (Scored("LOW", NOW), 0.45 * 0.25 + 0.05),
        (Scored("MEDIUM", ago(1800)), 0.225 + 0.1 + 0.05),
        (Scored("MEDIUM", NOW, retry_count=3), 0.225),
        (Scored("MEDIUM", NOW, dependents=5), 0.225 + 0.075 + 0.05),
        (Scored("MEDIUM", NOW, dependents=50), 0.225 + 0.15 + 0.05),
        (Scored("MEDIUM", NOW, deadline_at=NOW - timedelta(seconds=1)), 0.225 + 0.15 + 0.05),
        (Scored("MEDIUM", NOW, deadline_at=NOW + timedelta(seconds=450)), (0.225 + 0.075 + 0.05) * 1.25),
        (Scored("LOW", ago(7200)), 0.6),
    ],
)
def test_the_score(task: Scored, expected: float) -> None:
    assert rules.score(task, NOW) == pytest.approx(expected)


@settings(max_examples=examples(200))
@given(
    st.sampled_from(sorted(rules.PRIORITY_SCORE)),
    st.floats(0, 20_000),
    st.none() | st.floats(-2000, 20_000),
    st.integers(0, 5),
)
def test_a_stored_score_is_never_far_from_the_true_one(
    priority: str, age_s: float, deadline_s: float | None, retries: int
) -> None:
    deadline = None if deadline_s is None else NOW + timedelta(seconds=deadline_s)
    task = Scored(priority, ago(age_s), retries, 3, 0, deadline)
    stored = rules.score(task, NOW)
    due = rules.rescore_at(task, NOW)
    if due is None:
        # Nothing that time could still change: an hour later the score is the same.
        assert rules.score(task, NOW + timedelta(hours=1)) == pytest.approx(stored)
    else:
        assert due > NOW
        just_before = rules.score(task, max(NOW, due - timedelta(milliseconds=1)))
        # A quarter of the age counts 0.05, a third of the deadline 0.05, and the urgent factor applies to both.
        assert abs(just_before - stored) <= (0.05 + 0.05) * 1.25 + 1e-6


def test_retries_end_and_permanent_errors_are_not_tried_again() -> None:
    assert rules.after_failure(0, 3, "connection reset", permanent=False, jitter=1.0).delay_s == 1.0
    assert rules.after_failure(2, 3, "who knows", permanent=False, jitter=1.25).delay_s == 5.0
    assert rules.after_failure(9, 20, "timeout", permanent=False, jitter=1.0).delay_s == 60.0
    assert not rules.after_failure(3, 3, "timeout", permanent=False, jitter=1.0).retry
    assert not rules.after_failure(0, 3, "timeout", permanent=True, jitter=1.0).retry
    assert not rules.after_failure(0, 3, "Syntax Error in line 3", permanent=False, jitter=1.0).retry
    with pytest.raises(ValueError, match="jitter"):
        rules.backoff_s(0, 2.0)


@pytest.mark.parametrize(
    ("lease", "expected"),
    [
        (Lease("assigned", 2, "s2"), Attempt.HELD),
        (Lease("running", 2, "s2"), Attempt.HELD),
        (Lease("running", 3, "s3"), Attempt.LOST),
        (Lease("running", 2, "other"), Attempt.LOST),
        (Lease("pending", 2, None), Attempt.LOST),
        (Lease("cancelled", 2, "s2"), Attempt.CANCELLED),
        (Lease("completed", 2, "s2"), Attempt.ENDED),
        (Lease("failed", 2, "s2"), Attempt.ENDED),
        (Lease("completed", 3, "s3"), Attempt.LOST),
    ],
)
def test_fencing(lease: Lease, expected: Attempt) -> None:
    assert rules.attempt_state(lease, 2, "s2") is expected


def test_every_reason_is_told() -> None:
    around = Surroundings(
        status="pending",
        holds=int(sum(Hold)),
        waits_for=(("t1", "first", "running", "none"), ("t2", "second", "completed", "pending")),
        not_before=NOW + timedelta(seconds=5),
        start_error=None,
        releases=0,
        repository_error=None,
        now=NOW,
        required_capabilities=(),
        project_active=5,
        project_cap=5,
        organization_active=9,
        organization=OrganizationLimits(plan=12, own=9, hours=2.0, ms_used=7_200_000),
    )
    codes = [one.code for one in reasons(around)]
    assert len(codes) == len(set(codes)) == len(Hold) + 6
    assert [one.tasks for one in reasons(around) if one.tasks] == [("t1",), ("t2",)]


@pytest.mark.parametrize(
    ("limits", "room"),
    [
        (OrganizationLimits(plan=-1), None),
        (OrganizationLimits(plan=3), 3),
        (OrganizationLimits(plan=-1, own=5), 5),
        (OrganizationLimits(plan=3, own=5), 3),
        (OrganizationLimits(plan=9, own=5), 5),
        (OrganizationLimits(plan=0, own=5), 0),
        (OrganizationLimits(plan=-1, own=5, hours=1.0, ms_used=3_599_999), 5),
        (OrganizationLimits(plan=-1, own=5, hours=1.0, ms_used=3_600_000), 0),
        (OrganizationLimits(plan=-1, hours=0.0), 0),
    ],
)
def test_the_least_limit_of_an_organization_counts(limits: OrganizationLimits, room: int | None) -> None:
    assert limits.room == room


def test_a_full_organization_says_whose_limit_it_is() -> None:
    assert "5 of 5 tasks at once, the limit of its own setting" in (at_capacity(OrganizationLimits(9, 5), 5) or "")
    assert "3 of 3 tasks at once, the limit of its plan" in (at_capacity(OrganizationLimits(3, 5), 3) or "")
    assert at_capacity(OrganizationLimits(-1, 5), 4) is None
    assert at_capacity(OrganizationLimits(-1), 1000) is None
    spent = OrganizationLimits(-1, hours=1.5, ms_used=5_760_000)
    assert "used 1.6 of the 1.5 hours" in (out_of_hours(spent) or "")
    assert out_of_hours(OrganizationLimits(-1, hours=1.7, ms_used=5_760_000)) is None


def test_no_state_is_a_trap() -> None:
    """Every state is left by some move, ends, or is looked at by the sweeper."""
    for state, moves in rules.MOVES.items():
        assert moves or state == rules.COMPLETED
        assert all(target in rules.MOVES for target in moves)


class Queue(RuleBasedStateMachine):
    """Claims, leases and attempts of one task by the rules: at most one holder, and a late one changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.lease = Lease("pending", 0, None)
        self.retries = 0
        self.sandboxes = 0
        self.attempts: list[tuple[int, str]] = []
        self.ended_by: tuple[int, str] | None = None

    @precondition(lambda self: self.lease.status == "pending")
    @rule()
    def claim(self) -> None:
        self.sandboxes += 1
        attempt, sandbox = self.lease.attempt + 1, f"s{self.sandboxes}"
        assert all(attempt > old for old, _ in self.attempts), "attempt numbers only grow"
        self.lease = Lease("assigned", attempt, sandbox)
        self.attempts.append((attempt, sandbox))

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), action=st.sampled_from(["start", "complete", "fail", "release"]))
    def speak(self, data: st.DataObject, action: str) -> None:
        attempt, sandbox = data.draw(st.sampled_from(self.attempts))
        state = rules.attempt_state(self.lease, attempt, sandbox)
        if state is not Attempt.HELD:
            return
        assert (attempt, sandbox) == self.attempts[-1], "only the newest attempt holds"
        if action == "start":
            self.lease = Lease("running", attempt, sandbox)
        elif action == "complete":
            self.lease = Lease("completed", attempt, sandbox)
            assert self.ended_by is None
            self.ended_by = (attempt, sandbox)
        elif action == "release":
            self.lease = Lease("pending", attempt, None)
        else:
            after = rules.after_failure(self.retries, 3, "boom", permanent=False, jitter=1.0)
            self.retries += after.retry
            self.lease = Lease("pending", attempt, None) if after.retry else Lease("failed", attempt, sandbox)

    @precondition(lambda self: self.lease.status in rules.LEASED)
    @rule()
    def expire(self) -> None:
        self.lease = Lease("pending", self.lease.attempt, None)

    @invariant()
    def one_holder_at_most(self) -> None:
        holders = [one for one in self.attempts if rules.attempt_state(self.lease, *one) is Attempt.HELD]
        assert len(holders) == (1 if self.lease.status in rules.LEASED else 0)
        assert self.retries <= 3


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=examples(60), stateful_step_count=40)
