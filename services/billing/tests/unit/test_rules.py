"""Prices, limits and the ledger as pure rules."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from billing_service.costs import rules as costs
from billing_service.ledger import rules

AMOUNTS = st.integers(min_value=0, max_value=10**9)


@given(amount=AMOUNTS, part=AMOUNTS)
def test_every_posting_is_balanced(amount: int, part: int) -> None:
    for posting in (
        rules.grant(amount),
        rules.hold(amount),
        rules.close(amount, min(amount, part)),
        rules.spend(amount),
    ):
        assert rules.is_balanced(posting)


@pytest.mark.parametrize(
    ("standing", "budget", "limit"),
    [
        (rules.Standing(False, 5, 0, 0, 100), 0, None),
        (rules.Standing(False, 5, 3, 2, 100), 0, "workflows"),
        (rules.Standing(False, -1, 10**6, 0, 100), 0, None),
        (rules.Standing(False, 5, 0, 0, 100), 100, None),
        (rules.Standing(False, 5, 0, 0, 100), 101, "credit"),
        (rules.Standing(False, 5, 0, 0, -1), 0, None),
        (rules.Standing(True, -1, 0, 0, 100), 0, "account"),
    ],
)
def test_what_stops_a_reservation(standing: rules.Standing, budget: int, limit: str | None) -> None:
    stop = rules.refusal(standing, budget)
    assert (stop[0] if stop else None) == limit


def test_months_end_at_midnight_utc() -> None:
    assert rules.next_month(datetime(2026, 12, 31, 23, 59, 59, 9, UTC)) == datetime(2027, 1, 1, tzinfo=UTC)
    assert rules.next_month(datetime(2026, 1, 31, tzinfo=UTC)) == datetime(2026, 2, 1, tzinfo=UTC)


class TestPrices:
    def test_the_contract_s_example_forecast(self) -> None:
        assert costs.forecast(costs.FIRST_PRICES, 10, 5000, "anthropic", "claude-sonnet-4.5") == (540_000, 50_000)

    def test_tokens_are_priced_by_the_table(self) -> None:
        cost = costs.cost_of_tokens(costs.FIRST_PRICES, "OpenAI", "GPT-4", 1_000_000, 1_000_000)
        assert (cost.prompt, cost.completion, cost.listed) == (30_000_000, 60_000_000, True)

    def test_an_unlisted_model_has_the_default_price_and_says_so(self) -> None:
        cost = costs.cost_of_tokens(costs.FIRST_PRICES, "somebody", "new", 1000, 1000)
        assert (cost.prompt, cost.completion, cost.listed) == (3_000, 15_000, False)

    @given(st.integers(min_value=1, max_value=10**9), st.integers(min_value=1, max_value=10**8))
    def test_a_small_cost_is_not_nothing_and_rounding_is_below_one(self, units: int, price: int) -> None:
        exact = units * price / costs.MILLION
        assert costs.priced(units, price) >= 1
        assert exact <= costs.priced(units, price) + 1e-6
        assert costs.priced(units, price) < exact + 1.001

    def test_a_started_second_counts(self) -> None:
        totals = [costs.cost_of_sandbox(costs.FIRST_PRICES, milliseconds).total for milliseconds in (0, 1, 1000, 1001)]
        assert totals == [0, 28, 28, 56]


class Ledger(RuleBasedStateMachine):
    """Reservations, costs and ends in any order: balances equal the sum of postings and nothing is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.balance = {rules.GRANTED: 0, rules.AVAILABLE: 0, rules.RESERVED: 0, rules.SPENT: 0}
        self.open: dict[int, list[int]] = {}
        self.cost = 0
        self.count = 0
        self.post(rules.grant(1_000_000))

    def post(self, posting: rules.Posting) -> None:
        for name, amount in posting.items():
            self.balance[name] += amount

    @rule(budget=st.integers(min_value=0, max_value=400_000))
    def reserve(self, budget: int) -> None:
        standing = rules.Standing(False, 100, 0, len(self.open), self.balance[rules.AVAILABLE])
        if rules.refusal(standing, budget) is None:
            self.post(rules.hold(budget))
            self.count += 1
            self.open[self.count] = [budget, 0]

    @precondition(lambda self: self.open)
    @rule(amount=st.integers(min_value=0, max_value=300_000), data=st.data())
    def use(self, amount: int, data: st.DataObject) -> None:
        self.open[data.draw(st.sampled_from(sorted(self.open)))][1] += amount
        self.cost += amount

    @rule(amount=st.integers(min_value=0, max_value=1000))
    def use_without_a_reservation(self, amount: int) -> None:
        self.post(rules.spend(amount))
        self.cost += amount

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        reserved, spent = self.open.pop(data.draw(st.sampled_from(sorted(self.open))))
        within = min(reserved, spent)
        self.post(rules.close(reserved, within))
        self.post(rules.spend(spent - within))

    @invariant()
    def nothing_appears_or_vanishes(self) -> None:
        assert sum(self.balance.values()) == 0
        assert self.balance[rules.RESERVED] == sum(reserved for reserved, _ in self.open.values())
        assert self.balance[rules.SPENT] == self.cost - sum(spent for _, spent in self.open.values())


TestLedger = Ledger.TestCase
