"""Reservations and the ledger on a real database."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import Any

import grpc
import pytest

from billing_service.ledger import store
from billing_service.ledger.tables import Account
from servicekit.db import Tx
from servicekit.ids import new_id
from servicekit.rpc.wire import from_rpc_error

from .conftest import Billing, Start, created, finished, restated, started, usage

INCLUDED = 5_000_000


async def refused(call: object) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call  # type: ignore[misc]
    return str(error.value.code().name)


async def decided(billing: Billing, execution: str, organization: str) -> str:
    """`held`, or why it was refused. What is busy or late has decided nothing: it is asked again, as a caller would."""
    while True:
        try:
            return str((await billing.reserve(execution, organization)).state)
        except grpc.aio.AioRpcError as error:
            code = str(error.code().name)
            if code not in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"):
                return code
            await asyncio.sleep(0.1)


async def outlive(billing: Billing) -> None:
    """Let the time of every reservation that nobody confirmed be over."""
    async with billing.running.service.db.uow() as tx:
        await (await tx.connection()).execute("UPDATE reservations SET expires_at = now() - interval '1 second'")


class TestReserve:
    async def test_a_slot_and_a_budget_are_set_aside_once(self, billing: Billing) -> None:
        organization = billing.organization()
        first = await billing.reserve("exec-1", organization, budget=1_000_000)
        again = await billing.reserve("exec-1", organization, budget=1_000_000)
        assert first == again
        assert first.state == "held"
        assert await billing.balances(organization) == {
            "available": INCLUDED - 1_000_000,
            "reserved": 1_000_000,
            "spent": 0,
            "used": 0,
            "held": 1,
        }
        assert await billing.subjects() == ["account.created.v1", "reservation.held.v1"]
        measured = (await billing.http.get("/metrics")).text
        assert 'billing_reservations_total{outcome="held"}' in measured
        assert "\ndb_pool_size 8.0\n" in measured
        assert "\ndb_pool_in_use " in measured

    async def test_an_execution_of_another_organization_is_refused(self, billing: Billing) -> None:
        await billing.reserve("exec-1", billing.organization())
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await billing.reserve("exec-1", billing.organization())
        assert from_rpc_error(error.value, "billing").code == "billing.execution_is_another"

    async def test_a_hundred_at_once_never_pass_the_limit(self, billing: Billing) -> None:
        organization = billing.organization()
        answers = await asyncio.gather(*(decided(billing, f"exec-{n}", organization) for n in range(100)))
        assert Counter(answers) == {"held": 5, "FAILED_PRECONDITION": 95}
        assert (await billing.balances(organization))["held"] == 5
        assert await billing.job("check-ledger") is None

    async def test_budgets_at_once_never_pass_what_is_left(self, billing: Billing) -> None:
        organization = billing.organization()
        answers = await asyncio.gather(
            *(billing.reserve(f"exec-{n}", organization, budget=2_000_000) for n in range(5)), return_exceptions=True
        )
        assert sum(not isinstance(answer, BaseException) for answer in answers) == 2
        balances = await billing.balances(organization)
        assert (balances["available"], balances["reserved"]) == (1_000_000, 4_000_000)

    async def test_bad_requests(self, billing: Billing) -> None:
        organization = billing.organization()
        assert await refused(billing.reserve("", organization)) == "INVALID_ARGUMENT"
        assert await refused(billing.reserve("e", organization, budget=-1)) == "INVALID_ARGUMENT"
        assert await refused(billing.reserve("e", "unknown")) == "NOT_FOUND"
        await billing.reserve("e", organization)
        assert await refused(billing.reserve("e", billing.organization())) == "ABORTED"


class TestLife:
    async def test_settled_to_what_was_spent_exactly_once(self, billing: Billing) -> None:
        organization = billing.organization()
        await billing.reserve("exec-1", organization, budget=1_000_000)
        await billing.tell(started("exec-1"), organization)
        await billing.tell(usage("exec-1"), organization)
        for _ in range(3):
            await billing.tell(finished("exec-1"), organization)
        reservation = await billing.reservation("exec-1")
        assert (reservation.state, reservation.spent_micro_usd) == ("settled", 280)
        assert await billing.balances(organization) == {
            "available": INCLUDED - 280,
            "reserved": 0,
            "spent": 280,
            "used": 1,
            "held": 0,
        }
        assert (await billing.subjects()).count("reservation.settled.v1") == 1

    async def test_a_late_cost_is_taken_from_what_is_available(self, billing: Billing) -> None:
        organization = billing.organization()
        await billing.reserve("exec-1", organization, budget=1_000_000)
        await billing.tell(finished("exec-1"), organization)
        await billing.tell(usage("exec-1"), organization)
        assert (await billing.reservation("exec-1")).spent_micro_usd == 280
        assert (await billing.balances(organization))["available"] == INCLUDED - 280

    async def test_more_than_the_budget_is_taken_too(self, billing: Billing) -> None:
        organization = billing.organization()
        await billing.reserve("exec-1", organization, budget=100)
        await billing.tell(usage("exec-1"), organization)
        await billing.tell(finished("exec-1", "failed"), organization)
        balances = await billing.balances(organization)
        assert (balances["available"], balances["reserved"], balances["spent"]) == (INCLUDED - 280, 0, 280)

    @pytest.mark.parametrize("outcome", ["cancelled", "failed"])
    async def test_only_a_completed_one_uses_its_slot(self, billing: Billing, outcome: str) -> None:
        organization = billing.organization()
        await billing.reserve("exec-1", organization)
        await billing.tell(started("exec-1"), organization)
        await billing.tell(finished("exec-1", outcome), organization)
        assert (await billing.reservation("exec-1")).state == "released"
        balances = await billing.balances(organization)
        assert (balances["used"], balances["held"]) == (0, 0)

    async def test_usage_after_the_expiry_is_charged_once(self, billing: Billing) -> None:
        organization = billing.organization()
        await billing.reserve("exec-1", organization, budget=1000, ttl_s=60)
        await outlive(billing)
        await billing.job("expire-reservations")
        await billing.tell(usage("exec-1"), organization)
        await billing.tell(started("exec-1"), organization)
        await billing.tell(finished("exec-1"), organization)
        balances = await billing.balances(organization)
        assert (balances["spent"], balances["reserved"], balances["available"]) == (280, 0, INCLUDED - 280)

    async def test_one_reserved_again_after_its_expiry_lives_on(self, billing: Billing) -> None:
        organization = billing.organization()
        await billing.reserve("exec-1", organization, ttl_s=60)
        await outlive(billing)
        await billing.job("expire-reservations")
        assert (await billing.reserve("exec-1", organization)).state == "held"
        assert await billing.job("expire-reservations") == 0

    async def test_one_that_nobody_reserved_is_counted_all_the_same(self, billing: Billing) -> None:
        organization = billing.organization()
        for body in (finished("exec-1"), started("exec-1"), finished("exec-1")):
            await billing.tell(body, organization)
        balances = await billing.balances(organization)
        assert (balances["used"], balances["held"]) == (1, 0)

    async def test_an_unconfirmed_one_expires_and_a_late_start_takes_it_again(self, billing: Billing) -> None:
        organization = billing.organization()
        await billing.reserve("exec-1", organization, budget=5_000_000, ttl_s=60)
        assert await billing.job("expire-reservations") == 0
        await outlive(billing)
        assert await billing.job("expire-reservations") == 1
        assert (await billing.balances(organization))["held"] == 0
        for n in range(5):
            await billing.reserve(f"other-{n}", organization)
        await billing.tell(started("exec-1"), organization)
        assert (await billing.reservation("exec-1")).state == "confirmed"
        assert (await billing.balances(organization))["held"] == 6
        await billing.tell(finished("exec-1"), organization)
        assert (await billing.reservation("exec-1")).state == "settled"

    @pytest.mark.parametrize("begins", [True, False])
    async def test_what_was_spent_before_it_expired_is_settled_once(self, billing: Billing, begins: bool) -> None:
        """Usage may overtake the start of its execution by more than the time of the reservation."""
        organization = billing.organization()
        await billing.reserve("exec-1", organization, budget=1_000_000)
        await billing.tell(usage("exec-1", sandbox_milliseconds=1_000_000), organization)
        await outlive(billing)
        assert await billing.job("expire-reservations") == 1
        if begins:
            await billing.tell(started("exec-1"), organization)
        await billing.tell(finished("exec-1"), organization)
        balances = await billing.balances(organization)
        assert (balances["spent"], balances["available"]) == (28_000, INCLUDED - 28_000)

    async def test_what_is_said_of_one_that_is_taken_again_is_newer_than_its_expiry(self, billing: Billing) -> None:
        organization = billing.organization()
        for _ in range(2):
            await billing.reserve("exec-1", organization)
            await outlive(billing)
            await billing.job("expire-reservations")
        await billing.tell(started("exec-1"), organization)
        await billing.tell(finished("exec-1"), organization)
        async with billing.running.service.db.reader() as tx:
            rows = await (await tx.connection()).fetch(
                "SELECT subject, version FROM outbox WHERE subject LIKE 'billing.reservation.%' ORDER BY seq"
            )
        told = [row["subject"].removeprefix("billing.reservation.").removesuffix(".v1") for row in rows]
        assert told == ["held", "released", "held", "released", "confirmed", "settled"]
        assert [row["version"] for row in rows] == [1, 2, 3, 4, 5, 6]

    async def test_a_confirmed_one_does_not_expire(self, billing: Billing) -> None:
        organization = billing.organization()
        await billing.reserve("exec-1", organization, ttl_s=60)
        await billing.tell(started("exec-1"), organization)
        await outlive(billing)
        assert await billing.job("expire-reservations") == 0

    async def test_every_order_of_events_ends_alike(self, billing: Billing) -> None:
        ends = set()
        for number, order in enumerate(itertools.permutations(range(4))):
            organization = billing.organization()
            execution = f"exec-{number}"
            await billing.reserve(execution, organization, budget=1_000_000)
            bodies = [
                created(organization),
                started(execution),
                usage(execution, usage_id=f"usage-{number}"),
                finished(execution),
            ]
            for index in (*order, *order):
                await billing.tell(bodies[index], organization)
            reservation = await billing.reservation(execution)
            ends.add((reservation.state, reservation.spent_micro_usd, *(await billing.balances(organization)).values()))
        assert ends == {("settled", 280, INCLUDED - 280, 0, 280, 1, 0)}

    async def test_a_batch_locks_its_accounts_in_one_order(
        self, billing: Billing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = sorted([new_id(), new_id()])
        for organization in (first, second):
            await billing.tell(created(organization), organization)
        locked: list[str] = []
        change = store.change_account

        async def noted(tx: Tx, account: Account, **changes: Any) -> Account:
            locked.append(account.organization_id)
            return await change(tx, account, **changes)

        monkeypatch.setattr(store, "change_account", noted)
        for batch in ([(usage(), second), (usage(), first)], [(started("a"), second), (started("b"), first)]):
            locked.clear()
            await billing.tell_together(batch)
            assert locked == sorted(locked), batch
            assert set(locked) == {first, second}

    async def test_the_ledger_check_sees_what_does_not_add_up_few_organizations_at_a_time(
        self, billing: Billing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sound, unequal, unbalanced, last = sorted(billing.organization() for _ in range(4))
        for number, organization in enumerate((sound, unequal, unbalanced, last)):
            await billing.reserve(f"exec-{number}", organization, budget=1)
        async with billing.running.service.db.uow() as tx:
            connection = await tx.connection()
            change = "UPDATE billing_accounts SET spent_micro_usd = 7 WHERE organization_id = ANY($1)"
            await connection.execute(change, [unequal, last])
            # The balances agree with the entries; one posting made money.
            for statement in (
                "UPDATE ledger_entries SET amount_micro_usd = amount_micro_usd + 3"
                " WHERE organization_id = $1 AND account = 'reserved'",
                "UPDATE billing_accounts SET reserved_micro_usd = reserved_micro_usd + 3 WHERE organization_id = $1",
            ):
                await connection.execute(statement, unbalanced)
        pages: list[int] = []
        whole = store.imbalances

        async def noted(tx: Tx, after: str, limit: int) -> tuple[list[str], str | None]:
            pages.append(limit)
            return await whole(tx, after, limit)

        monkeypatch.setattr(store, "imbalances", noted)
        monkeypatch.setattr("billing_service.ledger.service.CHECKED_AT_ONCE", 3)
        check = next(job for job in billing.running.service.jobs if job.name == "check-ledger").run
        assert await check.__self__.imbalances() == [unequal, unbalanced, last]
        assert pages == [3, 3, 3]

    async def test_a_new_month_frees_slots_and_fills_the_allowance_up(self, billing: Billing) -> None:
        organization = billing.organization()
        for n in range(5):
            await billing.reserve(f"exec-{n}", organization)
            await billing.tell(usage(f"exec-{n}"), organization)
            await billing.tell(finished(f"exec-{n}"), organization)
        assert await refused(billing.reserve("more", organization)) == "FAILED_PRECONDITION"
        async with billing.running.service.db.uow() as tx:
            await (await tx.connection()).execute("UPDATE billing_accounts SET period_ends_at = now()")
        await billing.reserve("more", organization)
        assert (await billing.balances(organization))["available"] == INCLUDED

    async def test_loose_limits_are_a_thousand_times_as_wide(self, start: Start) -> None:
        billing = await start()
        organization = billing.organization()
        for n in range(6):
            await billing.reserve(f"exec-{n}", organization)


class TestReconciling:
    async def unsettled(self, billing: Billing) -> int:
        return (await billing.subjects()).count("reservation.unsettled.v1")

    async def pass_time(self, billing: Billing, seconds: int) -> None:
        """What was heard is so much longer ago, however slow the machine is."""
        async with billing.running.service.db.uow() as tx:
            statement = "UPDATE reservations SET checked_at = checked_at - make_interval(secs => $1)"
            await (await tx.connection()).execute(statement, float(seconds))

    async def test_a_confirmed_one_without_news_is_asked_after_once_in_a_while(self, start: Start) -> None:
        billing = await start(reconcile_after_s=600)
        organization = billing.organization()
        for execution in ("held", "confirmed", "ended"):
            await billing.reserve(execution, organization)
        for execution in ("confirmed", "ended"):
            await billing.tell(started(execution), organization)
        await billing.tell(finished("ended"), organization)
        assert await billing.job("ask-after-reservations") == 0
        await self.pass_time(billing, 601)
        assert await billing.job("ask-after-reservations") == 1
        assert await billing.job("ask-after-reservations") == 0
        await billing.tell(restated("confirmed", "running"), organization)
        assert (await billing.reservation("confirmed")).state == "confirmed"
        assert await billing.job("ask-after-reservations") == 0
        await self.pass_time(billing, 601)
        assert await billing.job("ask-after-reservations") == 1
        assert await self.unsettled(billing) == 2

    @pytest.mark.parametrize(
        ("state", "ends", "used"),
        [
            ("completed", "settled", 1),
            ("failed", "released", 0),
            ("cancelled", "released", 0),
            ("unknown", "released", 0),
        ],
    )
    async def test_a_lost_end_is_made_good_once(self, billing: Billing, state: str, ends: str, used: int) -> None:
        organization = billing.organization()
        await billing.reserve("exec-1", organization, budget=1000)
        await billing.tell(started("exec-1"), organization)
        await billing.tell(usage("exec-1"), organization)
        for body in (restated("exec-1", state), restated("exec-1", state), finished("exec-1", "failed")):
            await billing.tell(body, organization)
        assert (await billing.reservation("exec-1")).state == ends
        balances = await billing.balances(organization)
        assert (balances["used"], balances["held"], balances["spent"], balances["reserved"]) == (used, 0, 280, 0)

    async def test_restating_an_execution_that_nobody_reserved_counts_nothing(self, billing: Billing) -> None:
        organization = billing.organization()
        await billing.tell(created(organization), organization)
        await billing.tell(restated("exec-1", "completed"), organization)
        assert (await billing.balances(organization))["used"] == 0
