"""Reservations on a real database against a naive model: any order of reserving, events told twice, costs and expiries.

The model keeps what each execution holds and what it cost, and works out the balances anew after each step. The ledger
must add up, entry by entry, and nobody gets a reservation over the limits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from billing_service.ledger import store
from billing_service.main import build
from billing_service.rpc import BillingServicer
from billing_service.settings import Settings
from omoios.billing.v1 import billing_pb2 as pb
from servicekit.errors import AppError
from servicekit.ids import new_id
from servicekit.testing.profiles import examples

from .conftest import created, finished, hand_over, restated, started, usage

INCLUDED = 5_000_000
SLOTS = 2
EXECUTIONS = 5
PLACES = st.integers(0, EXECUTIONS - 1)
TIMES = st.sampled_from([1, 1, 2])
OPEN = ("held", "confirmed")
_ACCOUNT = """
SELECT available_micro_usd, reserved_micro_usd, spent_micro_usd, workflows_reserved, workflows_used, workflows_completed
FROM billing_accounts WHERE organization_id = $1
"""
_RESERVATIONS = """
SELECT execution_id, state, reserved_micro_usd, spent_micro_usd, ended_at IS NOT NULL
FROM reservations WHERE organization_id = $1
"""
_LEDGER = """
SELECT coalesce(sum(amount_micro_usd), 0)::bigint,
    coalesce(sum(amount_micro_usd) FILTER (WHERE account = $2), 0)::bigint
FROM ledger_entries WHERE organization_id = $1
"""
_TOLD = "SELECT count(*) FROM outbox WHERE organization_id = $1"


class World:
    """The service's parts, not started, on a loop of their own."""

    def __init__(self, url: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.service = build(Settings(env="test", database_url=url, database_pool_size=2, plan_limits="contract"))
        assert self.service.db is not None
        self.db = self.service.db
        servicer: Any = self.service.servicers[0].instance
        self.rpc: BillingServicer = servicer
        self.do(self.begin())

    async def begin(self) -> None:
        async with self.service.lifespans[0]():
            await self.fetch("UPDATE plan_tiers SET workflows_limit = $1 WHERE tier = 'free'", SLOTS)

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        async with self.db.uow() as tx:
            return list(await (await tx.connection()).fetch(statement, *arguments))

    def tell(self, body: Any, organization: str, times: int) -> None:
        """An event reaches its consumers, as often as given."""
        for _ in range(times):
            self.do(hand_over(self.service, [(body, organization)]))

    def job(self, name: str) -> Any:
        return self.do(next(job for job in self.service.jobs if job.name == name).run())

    def close(self) -> None:
        self.do(self.db.close())
        self.loop.close()


@dataclass
class Held:
    """What an execution holds in the model; `spent` is what was counted on it."""

    state: str
    budget: int
    spent: int = 0


class ReservationMachine(RuleBasedStateMachine):
    """Five executions of one organization on the free plan, which gives two slots here."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.organization = new_id()
        self.executions = [new_id() for _ in range(EXECUTIONS)]
        self.held: dict[str, Held] = {}
        self.granted, self.available, self.spent = INCLUDED, INCLUDED, 0
        self.used = self.completed = self.cost = 0
        self.known_usage: list[Any] = []
        self.world.tell(created(self.organization), self.organization, 2)
        self.check()

    # The model

    def open(self) -> list[Held]:
        return [one for one in self.held.values() if one.state in OPEN]

    def take(self, execution: str, state: str, budget: int) -> None:
        """A slot and a budget; what was spent on it before was settled when it expired."""
        one = self.held.setdefault(execution, Held(state, budget))
        one.state, one.spent = state, 0
        self.available -= one.budget

    def give_back(self, execution: str, state: str) -> None:
        one = self.held[execution]
        one.state = state
        self.available += one.budget - one.spent
        self.spent += one.spent

    def known(self, execution: str) -> Held:
        """As for an event: one that nobody reserved is taken without a budget, one that expired is taken again."""
        if execution not in self.held:
            self.take(execution, "held", 0)
        return self.held[execution]

    def ends(self, execution: str, outcome: str) -> None:
        one = self.known(execution)
        if one.state == "expired":
            self.take(execution, "confirmed", one.budget)
        if one.state in OPEN:
            completed = outcome == "completed"
            self.give_back(execution, "settled" if completed else "released")
            self.used += completed
            self.completed += completed

    # The rows

    def check(self) -> None:
        """Balances, reservations and the ledger say what the model says."""
        (account,) = self.world.do(self.world.fetch(_ACCOUNT, self.organization))
        held = self.open()
        reserved = sum(one.budget for one in held)
        assert tuple(account) == (self.available, reserved, self.spent, len(held), self.used, self.completed)
        found = {row[0]: tuple(row[1:]) for row in self.world.do(self.world.fetch(_RESERVATIONS, self.organization))}
        assert found == {
            execution: (one.state, one.budget, one.spent, one.state not in OPEN) for execution, one in self.held.items()
        }
        (sums,) = self.world.do(self.world.fetch(_LEDGER, self.organization, "granted"))
        assert tuple(sums) == (0, -self.granted), "the entries of all accounts balance"
        assert self.granted == self.available + reserved + self.spent
        assert self.cost == self.spent + sum(one.spent for one in held), "each cost is taken once"

    def told(self) -> int:
        count: int = self.world.do(self.world.fetch(_TOLD, self.organization))[0][0]
        return count

    # Calls

    @initialize(done=st.integers(0, SLOTS - 1))
    def some_are_used(self, done: int) -> None:
        for _ in range(done):
            execution = new_id()
            self.world.tell(finished(execution), self.organization, 1)
            self.ends(execution, "completed")
        self.check()

    @rule(place=PLACES, budget=st.sampled_from([0, 1, 700_000, 2_000_000, 4_999_999, 6_000_000]), times=TIMES)
    def reserve(self, place: int, budget: int, times: int) -> None:
        execution = self.executions[place]
        request = pb.ReserveExecutionRequest(
            execution_id=execution,
            organization_id=self.organization,
            spec_id="spec-1",
            project_id="project-1",
            budget_micro_usd=budget,
        )
        for _ in range(times):
            one = self.held.get(execution)
            full = self.used + len(self.open()) >= SLOTS
            takes = one is None or one.state == "expired"
            if takes and (full or (budget > 0 and budget > self.available)):
                with pytest.raises(AppError) as refused:
                    self.world.do(self.world.rpc.ReserveExecution(request, None))
                assert refused.value.code == "billing.limit_reached"
                assert refused.value.meta["limit"] == ("workflows" if full else "credit")
            else:
                answer = self.world.do(self.world.rpc.ReserveExecution(request, None)).reservation
                if takes:
                    self.take(execution, "held", budget)
                    assert self.used + len(self.open()) <= SLOTS
                assert answer.state == self.held[execution].state
            self.check()

    # Events

    @rule(place=PLACES, times=TIMES)
    def starts(self, place: int, times: int) -> None:
        execution = self.executions[place]
        self.world.tell(started(execution), self.organization, times)
        one = self.known(execution)
        if one.state == "expired":
            self.take(execution, "confirmed", one.budget)
        elif one.state == "held":
            one.state = "confirmed"
        self.check()

    @rule(place=PLACES, outcome=st.sampled_from(["completed", "completed", "failed", "cancelled"]), times=TIMES)
    def ends_with(self, place: int, outcome: str, times: int) -> None:
        self.world.tell(finished(self.executions[place], outcome), self.organization, times)
        self.ends(self.executions[place], outcome)
        self.check()

    @rule(place=PLACES, state=st.sampled_from(["running", "paused", "completed", "failed", "unknown"]), times=TIMES)
    def is_restated(self, place: int, state: str, times: int) -> None:
        execution = self.executions[place]
        self.world.tell(restated(execution, state), self.organization, times)
        one = self.held.get(execution)
        if one is not None and one.state in OPEN and state not in ("running", "paused"):
            self.ends(execution, state)
        self.check()

    @rule(place=st.none() | PLACES, seconds=st.integers(1, 60_000), times=TIMES)
    def costs(self, place: int | None, seconds: int, times: int) -> None:
        execution = "" if place is None else self.executions[place]
        body = usage(execution, sandbox_milliseconds=seconds * 1000)
        # The first price of a second of a sandbox is 28 micro-USD.
        self.known_usage.append(body)
        self.cost += 28 * seconds
        self.world.tell(body, self.organization, times)
        one = self.held.get(execution)
        if one is not None and one.state != "expired":
            one.spent += 28 * seconds
        if one is None or one.state not in OPEN:
            self.available -= 28 * seconds
            self.spent += 28 * seconds
        self.check()

    @precondition(lambda self: self.known_usage)
    @rule(data=st.data())
    def an_old_cost_comes_again(self, data: st.DataObject) -> None:
        body = data.draw(st.sampled_from(self.known_usage))
        before = self.told()
        self.world.tell(body, self.organization, 1)
        assert self.told() == before
        self.check()

    # Time

    @rule(places=st.sets(PLACES, min_size=1, max_size=3), month=st.sampled_from([False, False, False, True]))
    def time_passes(self, places: set[int], month: bool) -> None:
        if month:
            self.a_month_begins()
        late = [self.executions[one] for one in sorted(places)]
        self.world.do(
            self.world.fetch(
                "UPDATE reservations SET expires_at = clock_timestamp() - interval '1 second'"
                " WHERE execution_id = ANY($1)",
                late,
            )
        )
        due = [one for one in late if one in self.held and self.held[one].state == "held"]
        assert self.world.job("expire-reservations") == len(due)
        for execution in due:
            self.give_back(execution, "expired")
        self.check()

    def a_month_begins(self) -> None:
        self.world.do(
            self.world.fetch(
                "UPDATE billing_accounts SET period_ends_at = clock_timestamp() WHERE organization_id = $1",
                self.organization,
            )
        )
        # The next one who takes the account sees the new month; this one is refused for a reason of his own.
        request = pb.ReserveExecutionRequest(
            execution_id=new_id(), organization_id=self.organization, budget_micro_usd=10**15
        )
        with pytest.raises(AppError) as refused:
            self.world.do(self.world.rpc.ReserveExecution(request, None))
        assert refused.value.code == "billing.limit_reached"
        self.used = 0
        # What is left of the last allowance is replaced; a debt stays.
        given = INCLUDED - max(0, min(self.available, INCLUDED))
        self.available += given
        self.granted += given
        self.check()


@pytest.fixture
def world(database: Any) -> Iterator[World]:
    made = World(database("billing").url)
    yield made
    made.close()


@pytest.mark.timeout(300)
def test_any_sequence_leaves_the_ledger_as_the_model_says(world: World) -> None:
    class Machine(ReservationMachine):
        pass

    Machine.world = world
    run_state_machine_as_test(
        Machine,
        # To make a failing example small takes minutes here: add Phase.shrink by hand.
        settings=settings(max_examples=examples(20), phases=[Phase.generate]),
    )
    assert world.do(imbalances(world)) == []


async def imbalances(world: World) -> list[str]:
    """What the ledger's own check finds."""
    async with world.db.reader() as tx:
        wrong, _ = await store.imbalances(tx, "", 10_000)
        return wrong
